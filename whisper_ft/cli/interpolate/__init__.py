"""Interpolation between a model and the one from which it was tuned: every mixture scored, the best one written."""
