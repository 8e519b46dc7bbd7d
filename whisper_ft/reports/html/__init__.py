"""The frame of every HTML page."""
