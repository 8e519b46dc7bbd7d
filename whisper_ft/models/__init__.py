"""Whisper in and out: loading, generation settings, export."""
