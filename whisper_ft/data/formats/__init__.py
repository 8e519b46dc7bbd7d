"""One module for each data format."""
