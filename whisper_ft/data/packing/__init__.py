"""Packing: the utterances of a block share the windows of the model."""
