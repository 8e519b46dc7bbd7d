"""Code that knows nothing about speech: processes, files, errors and randomness."""
