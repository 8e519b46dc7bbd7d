"""Whisper models: loading, generation settings and export."""
