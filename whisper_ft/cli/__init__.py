"""Commands: `python -m whisper_ft COMMAND`."""
