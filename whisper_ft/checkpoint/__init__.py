"""Checkpoints: what a run is at the end of a step, whole or not there, verified before it is used. No pickle.

A checkpoint is a folder `step-00001000` of safetensors and JSON with a manifest of every file's size and sha256. It is
filled under another name, made durable and renamed; the rename is the commit. They are ordered by a save counter in
the manifest, never by a clock. Protocol and evidence: docs/decisions/0004-checkpoints.md.

`python -m whisper_ft checkpoint list|verify|export DIR` is for people.
"""

from whisper_ft.checkpoint.format import (
    MANIFEST,
    MODEL,
    OPTIMIZER,
    TRAINER,
    ListedCheckpoint,
    list_checkpoints,
    load_optimizer,
    load_weights,
    newest_record,
    path_of,
    read_manifest,
    read_record,
    verify,
)
from whisper_ft.checkpoint.retention import PINNED, retain
from whisper_ft.checkpoint.selection import branch_name, choose
from whisper_ft.checkpoint.writer import Contents, contents_of, save, write

__all__ = [
    "MANIFEST",
    "MODEL",
    "OPTIMIZER",
    "PINNED",
    "TRAINER",
    "Contents",
    "ListedCheckpoint",
    "branch_name",
    "choose",
    "contents_of",
    "list_checkpoints",
    "load_optimizer",
    "load_weights",
    "newest_record",
    "path_of",
    "read_manifest",
    "read_record",
    "retain",
    "save",
    "verify",
    "write",
]
