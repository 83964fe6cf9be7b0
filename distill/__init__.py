"""Training: teacher, student, losses (needs the ``distill`` extra)."""
