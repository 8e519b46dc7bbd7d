"""Parts of a training run: resume, saves, run directory, published models."""
