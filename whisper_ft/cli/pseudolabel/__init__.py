"""Transcripts for audio without text, as a source of training data: filtered, and each with its origin."""
