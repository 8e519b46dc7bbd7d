"""Tracker backends: TensorBoard, Weights & Biases, trackio. Each package runs in a process of its own.

Training writes rows to a pipe and never waits for the backend. So a package that hangs, raises, patches signals, fills
a disk or crashes does not disturb training, and it can be killed at a deadline. Evidence:
docs/decisions/0010-trackers.md.
"""
