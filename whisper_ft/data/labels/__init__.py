"""Conversion of transcripts to label tokens."""
