"""Compiling a trained model into a bundle (needs the ``export`` extra)."""
