"""Augmentation of training windows: random transforms of waveforms and of log-mels."""
