"""Export formats. `hf` writes the Hugging Face folder that a run publishes; a converter module reads such a folder."""
