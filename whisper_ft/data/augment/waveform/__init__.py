"""Augmentation of waveforms: random transforms of the sound of an utterance, before it enters a window."""
