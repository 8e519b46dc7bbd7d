"""Export of a model to the format of another engine, with a check in that engine."""
