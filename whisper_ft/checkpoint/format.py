"""Checkpoints that are there: found, verified, read."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, load_model

from whisper_ft.runtime import atomic
from whisper_ft.runtime.errors import ResumeError, one_line

MODEL, OPTIMIZER, TRAINER, MANIFEST = "model.safetensors", "optimizer.safetensors", "trainer.json", "manifest.json"
PICKLES = {".bin", ".ckpt", ".pickle", ".pkl", ".pt", ".pth"}
"""Endings of files that other programs unpickle, which runs whatever is in them."""


@dataclass(frozen=True)
class ListedCheckpoint:
    """A committed checkpoint; `problem` says in a line why its manifest cannot be used."""

    path: Path
    step: int
    save: int
    problem: str | None = None


def path_of(folder: Path, step: int) -> Path:
    """Where the checkpoint of a step is, in the checkpoints folder of its run."""
    return folder / f"step-{step:08d}"


def list_checkpoints(folder: Path) -> list[ListedCheckpoint]:
    """Everything here that has a checkpoint's name, newest save first; only manifests are read, not the other files."""
    found = []
    for path in folder.glob("step-*"):
        if not path.is_dir() or path.is_symlink() or not path.name.removeprefix("step-").isdigit():
            continue
        step = int(path.name.removeprefix("step-"))
        try:
            found.append(ListedCheckpoint(path, step, int(read_manifest(path)["save"])))
        except (OSError, ValueError, KeyError, TypeError) as error:
            found.append(ListedCheckpoint(path, step, 0, f"its {MANIFEST} cannot be read ({one_line(error)})"))
    # Those whose place in the order is unknown come first, so that they are named before another is used.
    return sorted(found, key=lambda one: (one.problem is not None, one.save), reverse=True)


def verify(path: Path, *, deep: bool = True) -> str | None:
    """Why a checkpoint cannot be used, in a line; None if every byte is what was written.

    Without `deep` no file is read but the manifest: sizes are compared, contents are not.
    """
    try:
        files = read_manifest(path)["files"]
        sizes = {name: (int(expected["bytes"]), str(expected["sha256"])) for name, expected in files.items()}
        planted = sorted(inner.name for inner in path.iterdir() if inner.suffix.lower() in PICKLES)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"its {MANIFEST} cannot be read ({one_line(error)})"
    if planted:
        return f"it holds {planted[0]}, by its name a pickle: none was written here and none is read; take it away"
    for name in (MODEL, OPTIMIZER, TRAINER):
        if name not in sizes:
            return f"its {MANIFEST} does not list {name}"
    return next((problem for name in sizes if (problem := _problem_of(path, name, *sizes[name], deep))), None)


def _problem_of(path: Path, name: str, size: int, sha256: str, deep: bool) -> str | None:
    """Why a file is not what the manifest says of it."""
    if Path(name).name != name:
        return f"its {MANIFEST} names a file outside of it: {name}"
    if not (path / name).is_file():
        return f"{name} is missing"
    found = (path / name).stat().st_size
    if found != size:
        return f"{name} has {found} bytes, {size} were written"
    try:
        if deep and atomic.sha256(path / name) != sha256:
            return f"{name} is damaged (its sha256 differs)"
    except OSError as error:
        return f"{name} cannot be read ({error.strerror or error})"
    return None


def read_manifest(path: Path) -> dict[str, Any]:
    """Step, save counter, parent, time, and size and sha256 of each file."""
    manifest: dict[str, Any] = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
    return manifest


def read_record(path: Path) -> dict[str, Any]:
    """What was recorded beside the tensors: state, configuration, data, versions."""
    trainer: dict[str, Any] = json.loads((path / TRAINER).read_text(encoding="utf-8"))
    return trainer


def newest_record(folder: Path) -> dict[str, Any] | None:
    """What the newest checkpoint recorded beside its tensors; None where none can be read. Verifies nothing."""
    for found in list_checkpoints(folder):
        try:
            trainer = read_record(found.path)
        except (OSError, ValueError):
            continue
        if found.problem is None and isinstance(trainer, dict) and isinstance(trainer.get("config"), dict):
            return trainer
    return None


def load_weights(path: Path, model: Any) -> None:
    """Put a checkpoint's weights into a model of the same shape; tied weights stay tied. ResumeError."""
    try:
        load_model(model, str(path / MODEL), strict=True)
    except (RuntimeError, SafetensorError) as error:
        raise ResumeError(f"{path}: the weights do not fit this model: {one_line(error)}") from error


def load_optimizer(path: Path) -> dict[str, torch.Tensor]:
    """A checkpoint's optimizer state by name."""
    return dict(load_file(path / OPTIMIZER))
