"""Audio: decoding of bytes to a waveform, and log-mel features of a waveform."""
