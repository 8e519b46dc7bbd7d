"""Scoring: error rates of transcripts, and further analysis of predictions."""
