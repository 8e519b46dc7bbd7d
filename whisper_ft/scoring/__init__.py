"""Texts to error rates, and the analysis of predictions."""
