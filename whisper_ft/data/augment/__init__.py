"""Augmentation of training windows: transforms of the waveform and of the log-mel, each a pure function of its key."""
