"""Checkpoints on disk: names of their files, list of a run's checkpoints, and verification. torch is not imported."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from whisper_ft.checkpoint.record import TRAINER, CheckpointRecord, read_record
from whisper_ft.runtime import atomic
from whisper_ft.runtime.errors import ResumeError, one_line

MODEL, OPTIMIZER, MANIFEST = "model.safetensors", "optimizer.safetensors", "manifest.json"
PICKLES = {".bin", ".ckpt", ".pickle", ".pkl", ".pt", ".pth"}
"""Suffixes of files that other programs unpickle. Unpickling runs code from the file."""


@dataclass(frozen=True)
class ListedCheckpoint:
    """A checkpoint folder, as its manifest describes it."""

    path: Path
    step: int
    save: int
    """Save counter, which grows by one with each save of the run. Checkpoints are ordered by it, not by a clock."""
    problem: str | None = None
    """Reason in one line why the manifest cannot be used; None if it can."""


def path_of(folder: Path, step: int) -> Path:
    """Path of the checkpoint of a step; `folder` is the checkpoints folder of the run."""
    return folder / f"step-{step:08d}"


def list_checkpoints(folder: Path) -> list[ListedCheckpoint]:
    """List all folders named like a checkpoint, the newest save first. Only their manifests are read."""
    listed = []
    for path in folder.glob("step-*"):
        if not path.is_dir() or path.is_symlink() or not path.name.removeprefix("step-").isdigit():
            continue
        step = int(path.name.removeprefix("step-"))
        try:
            listed.append(ListedCheckpoint(path, step, int(read_manifest(path)["save"])))
        except (OSError, ValueError, KeyError, TypeError) as error:
            listed.append(ListedCheckpoint(path, step, 0, f"its {MANIFEST} cannot be read ({one_line(error)})"))
    # Checkpoints without a save counter come first, so that they are reported before another one is used.
    return sorted(listed, key=lambda item: (item.problem is not None, item.save), reverse=True)


def verify(path: Path, *, deep: bool = True) -> str | None:
    """Return the reason in one line why a checkpoint cannot be used; None if every byte is as it was written.

    With `deep`, every file is hashed. Without it only the sizes of the files are compared.
    """
    try:
        files = read_manifest(path)["files"]
        sizes = {name: (int(expected["bytes"]), str(expected["sha256"])) for name, expected in files.items()}
        pickles = sorted(inner.name for inner in path.iterdir() if inner.suffix.lower() in PICKLES)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"its {MANIFEST} cannot be read ({one_line(error)})"
    if pickles:
        return f"it holds {pickles[0]}, a pickle by its name; no pickle is written or read here, so remove it"
    for name in (MODEL, OPTIMIZER, TRAINER):
        if name not in sizes:
            return f"its {MANIFEST} does not list {name}"
    return next((problem for name in sizes if (problem := _problem_of(path, name, *sizes[name], deep))), None)


def _problem_of(path: Path, name: str, size: int, sha256: str, deep: bool) -> str | None:
    """Return the reason why a file does not match the manifest; None if it matches."""
    if Path(name).name != name:
        return f"its {MANIFEST} names a file outside of it: {name}"
    if not (path / name).is_file():
        return f"{name} is missing"
    actual = (path / name).stat().st_size
    if actual != size:
        return f"{name} has {actual} bytes, {size} were written"
    try:
        if deep and atomic.sha256(path / name) != sha256:
            return f"{name} is damaged (its sha256 differs)"
    except OSError as error:
        return f"{name} cannot be read ({error.strerror or error})"
    return None


def read_manifest(path: Path) -> dict[str, Any]:
    """Read the manifest of a checkpoint: step, save counter, parent, time, and the size and sha256 of each file.

    Raises OSError if the file cannot be read, and ValueError if it is not JSON.
    """
    manifest: dict[str, Any] = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
    return manifest


def newest_record(folder: Path) -> CheckpointRecord | None:
    """Read the record of the newest checkpoint in a folder, without verifying it; None if no record can be read.

    If the newest record cannot be read, the next older one is tried.
    """
    for listed in list_checkpoints(folder):
        if listed.problem is None:
            try:
                return read_record(listed.path)
            except (OSError, ResumeError):
                continue
    return None
