"""Recommenders that fit on the device: log and catalogue in, one small file out."""

__version__ = "0.1.0"
