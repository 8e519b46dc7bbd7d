"""Rows of a data set to windows of the model."""
