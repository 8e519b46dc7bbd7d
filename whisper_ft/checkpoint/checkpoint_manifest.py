"""Manifest of a checkpoint: its step, its place in the order of saves, and size and sha256 of each of its files."""

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from whisper_ft.runtime.regular_file import read_regular, strict_json

MANIFEST = "manifest.json"
MANIFEST_BYTES = 1 << 20  # largest manifest that is read; ours have less than 1,000 bytes
LONGEST_NAME = 255  # bytes that file systems allow
LARGEST = 2**63  # bound of every number in a manifest
OWN_SHA256 = "sha256"
"""Field with the sha256 of all other fields. Early manifests lack it."""
FIELDS = {"step", "save", "parent", "time", "files"}


@dataclass(frozen=True)
class WrittenFile:
    """A file of a checkpoint, as it was written."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """Content of a manifest."""

    step: int
    save: int
    """Save counter, which grows by one with each save of the run. Checkpoints are ordered by it, not by a clock."""
    parent: str | None
    """Name of the checkpoint before this one; None for the first."""
    time: str
    """Time of the save, for a person. It orders nothing."""
    files: Mapping[str, WrittenFile]

    @property
    def bytes(self) -> int:
        """Size of all files together."""
        return sum(file.bytes for file in self.files.values())

    def to_json(self) -> dict[str, Any]:
        """Return the manifest as JSON values, with the sha256 of itself."""
        files = {name: {"bytes": file.bytes, "sha256": file.sha256} for name, file in self.files.items()}
        fields = {"step": self.step, "save": self.save, "parent": self.parent, "time": self.time, "files": files}
        return {**fields, OWN_SHA256: own_sha256(fields)}

    @classmethod
    def from_json(cls, fields: Any) -> Self:
        """Build a manifest from JSON values. Raises ValueError if they are not those that `to_json` returned.

        A manifest without its own sha256 must have exactly the fields of early ones, so that a damaged name is noticed.
        """
        if not isinstance(fields, dict):
            raise ValueError("it is not an object")
        own = fields.get(OWN_SHA256)
        rest = {name: value for name, value in fields.items() if name != OWN_SHA256}
        if own is None and set(fields) != FIELDS:
            raise ValueError("its fields are not those of a manifest")
        if own is not None and own != own_sha256(rest):
            raise ValueError("it is damaged: its own sha256 differs")
        files = rest.get("files")
        if not isinstance(files, dict):
            raise ValueError("it lists no files")
        step, save = (_count(rest.get(name), name) for name in ("step", "save"))
        written = {_file_name(name): _written(file, name) for name, file in files.items()}
        return cls(step, save, _text(rest.get("parent")), _text(rest.get("time")) or "", written)


def own_sha256(fields: Mapping[str, Any]) -> str:
    """Return the sha256 of the fields of a manifest in canonical JSON: names sorted, no spaces, ASCII.

    `fields` must not hold the manifest's own sha256.
    """
    return hashlib.sha256(json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def read_manifest(checkpoint: Path) -> Manifest:
    """Read the manifest of a checkpoint.

    Raises OSError if the file cannot be read, and ValueError if it is not a manifest as it was written.
    """
    return Manifest.from_json(strict_json(read_regular(checkpoint / MANIFEST, MANIFEST_BYTES)))


def _count(value: Any, name: str) -> int:
    if type(value) is not int or not 0 <= value < LARGEST:  # type: a bool is an int, too
        raise ValueError(f"{name} is {str(value)[:40]}")
    return value


def _text(value: Any) -> str | None:
    if value is not None and not isinstance(value, str):
        raise ValueError("parent or time is not a text")
    return value


def _file_name(name: str) -> str:
    if Path(name).name != name or name == ".." or len(os.fsencode(name)) > LONGEST_NAME or "\0" in name:
        raise ValueError(f"it names a file outside of its folder: {name[:40]}")
    return name


def _written(file: Any, name: str) -> WrittenFile:
    if not isinstance(file, dict) or set(file) != {"bytes", "sha256"}:
        raise ValueError(f"{name[:40]} has no size and sha256")
    if not isinstance(file["sha256"], str) or not re.fullmatch("[0-9a-f]{64}", file["sha256"]):
        raise ValueError(f"the sha256 of {name[:40]} is none")
    return WrittenFile(_count(file["bytes"], "bytes"), file["sha256"])
