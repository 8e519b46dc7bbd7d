"""Export formats: one module each, with `refuse(loaded)` and `write(loaded, out, quantization)`.

`hf` also writes the folders that a run publishes. A writer fills an existing, empty folder, and `refuse` raises
UsageError for a model that the engines of the format cannot take.
"""
