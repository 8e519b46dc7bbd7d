"""Console output for a person."""
