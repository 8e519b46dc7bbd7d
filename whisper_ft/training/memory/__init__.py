"""Memory of a training step: its estimate from a model's dimensions, and the search for a batch that fits."""
