"""Tracking of a run: console output, log files in the run directory, and backends such as TensorBoard.

All of it is best effort. A full disk, a closed terminal or a service that is down is counted, reported once, and never
stops a training.
"""
