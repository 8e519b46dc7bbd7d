"""Diagnosis of a run: a plain answer to the question why its WER is poor."""
