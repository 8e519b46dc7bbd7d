"""Export formats.

`hf` writes the Hugging Face folder that a run publishes. A module for another format converts such a folder.
"""
