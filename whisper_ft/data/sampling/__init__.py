"""Sampling: the order of the rows, and their partition over ranks and workers."""
