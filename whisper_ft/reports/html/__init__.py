"""Shared parts of all HTML pages: frame, style, colours and charts."""
