"""Utterances and windows of a training step, printed without a model."""
