"""Training curves as PNG and HTML."""
