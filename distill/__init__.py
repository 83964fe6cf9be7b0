"""Training: teacher, student, losses (needs the ``distill`` extra)."""

LOSSES = ("ce", "bce", "mse")  # of a cross-encoder: of groups, of single pairs, to the two towers' scores
NEGATIVES = ("uniform", "popularity", "in-batch", "hard")  # where its other candidates come from
