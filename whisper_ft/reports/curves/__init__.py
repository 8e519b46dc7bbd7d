"""Training curves as PNG pictures and HTML pages."""
