"""Processes, files, errors and randomness: nothing of speech."""
