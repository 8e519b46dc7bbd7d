"""Audio bytes to a waveform, waveform to log-mel."""
