"""Tracker backends: TensorBoard, Weights & Biases, trackio. Each package runs in a process of its own.

Training writes rows to a pipe and never waits for it. So a package that hangs, raises, patches signals, fills a disk or
crashes does not disturb the loop, and it can be killed at a deadline. Evidence: docs/decisions/0010-trackers.md.
"""
