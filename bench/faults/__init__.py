"""Runs with one fault each, on which the rules of `diagnose` are built and counted."""
