"""Checkpoints: the state of a run after a step, either complete or absent, and verified before use.

A checkpoint is a folder `step-00001000` of safetensors and JSON, with a manifest of the size and sha256 of every file.
No pickle is written or read. The folder is written under another name, made durable and renamed; the rename is the
commit. Checkpoints are ordered by a save counter in the manifest, not by a clock. Protocol and evidence:
docs/decisions/0004-checkpoints.md.
"""
