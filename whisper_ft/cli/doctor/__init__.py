"""Check of the data before any GPU time: `python -m whisper_ft doctor --config FILE`."""
