"""Transcripts to label tokens."""
