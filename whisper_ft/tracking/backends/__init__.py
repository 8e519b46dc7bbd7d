"""Trackers of other makers: TensorBoard, Weights & Biases, trackio. Each runs in a process of its own.

Training hands rows to a pipe and never waits for one: whatever such a package does (hang, raise, patch signals, fill
a disk, crash), the loop does not notice, and a process can be ended at a deadline where a thread cannot.
"""

from whisper_ft.tracking.backends.process import Ready, TrackerProcess, identity_of, refuse_missing

__all__ = ["Ready", "TrackerProcess", "identity_of", "refuse_missing"]
