"""Checkpoints: the state of a run after a step, complete or absent, verified before use. No pickle.

A checkpoint is a folder `step-00001000` of safetensors and JSON, with a manifest of the size and sha256 of every file.
It is written under another name, made durable and renamed; the rename is the commit. A save counter in the manifest
orders checkpoints, never a clock. Protocol and evidence: docs/decisions/0004-checkpoints.md.
"""
