"""Modules that make up a training run: resume, saves, run directory, published models."""
