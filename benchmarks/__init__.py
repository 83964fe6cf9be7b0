"""Measuring: the timer core, scenarios and evaluation. Never needs torch to time the runtime."""
