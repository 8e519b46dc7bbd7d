"""Evaluation results for people: one HTML page, tables on the console, and one line to search for with grep."""
