"""Diagnosis of a run: rules that find the likely cause of a poor result in the files that the run wrote."""
