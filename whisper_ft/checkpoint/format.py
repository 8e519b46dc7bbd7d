"""Checkpoints on disk: names of their files, list of a run's checkpoints, and verification. torch is not imported."""

import re
from dataclasses import dataclass
from pathlib import Path

from whisper_ft.checkpoint.checkpoint_manifest import MANIFEST, WrittenFile, read_manifest
from whisper_ft.checkpoint.record import TRAINER, AnotherVersionError, CheckpointRecord, read_record
from whisper_ft.checkpoint.safetensors_header import tensor_names
from whisper_ft.runtime import atomic
from whisper_ft.runtime.errors import ResumeError, one_line
from whisper_ft.runtime.regular_file import open_regular

MODEL, OPTIMIZER = "model.safetensors", "optimizer.safetensors"
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
    """List all folders named like a checkpoint: first those with a problem, then the newest save first.

    Only the manifests are read. Symbolic links are left out. The list is empty if `folder` does not exist.
    """
    listed = []
    for path in folder.glob("step-*"):
        if not (number := re.fullmatch("step-([0-9]{1,18})", path.name)) or not path.is_dir() or path.is_symlink():
            continue
        step, save, problem = int(number[1]), 0, None
        try:
            manifest = read_manifest(path)
            save = manifest.save
            if manifest.step != step:
                problem = f"its {MANIFEST} is of step {manifest.step}"
        except (OSError, ValueError) as error:
            problem = _unreadable(error)
        listed.append(ListedCheckpoint(path, step, save, problem))
    # Checkpoints without a save counter come first, so that they are reported before another one is used.
    return sorted(listed, key=lambda item: (item.problem is not None, item.save), reverse=True)


def is_checkpoint(folder: Path) -> bool:
    """Return True if a folder is a checkpoint, by the files in it; it may be damaged."""
    return (folder / TRAINER).is_file() and (folder / MANIFEST).is_file()


def foreign_folders(folder: Path) -> list[str]:
    """Return the names of folders that begin like a checkpoint's and do not end in a step, such as `step-²`, sorted."""
    names = (path.name for path in folder.glob("step-*") if path.is_dir())
    return sorted(name for name in names if not re.fullmatch("step-[0-9]{1,18}", name))


def verify(path: Path, *, deep: bool = True) -> str | None:
    """Return the reason in one line why a checkpoint cannot be used; None if it can be used.

    With `deep`, every file is hashed. Without it, files with tensors are compared by size and header only. A file with
    the suffix of a pickle is a reason. A record of another version is no reason, because it is not damaged.
    """
    try:
        manifest = read_manifest(path)
        pickles = sorted(inner.name for inner in path.iterdir() if inner.suffix.lower() in PICKLES)
    except (OSError, ValueError) as error:
        return _unreadable(error)
    if pickles:
        return f"it holds {pickles[0]}, a pickle by its name; no pickle is written or read here, so remove it"
    for name in (MODEL, OPTIMIZER, TRAINER):
        if name not in manifest.files:
            return f"its {MANIFEST} does not list {name}"
    for name, written in manifest.files.items():
        if problem := _file_problem(path, name, written, deep):
            return problem
    return _content_problem(path)


def _unreadable(error: Exception) -> str:
    return f"its {MANIFEST} cannot be read ({one_line(error)})"


def _file_problem(path: Path, name: str, written: WrittenFile, deep: bool) -> str | None:
    """Return the reason why a file does not match the manifest; None if it matches."""
    try:
        with open_regular(path / name) as file:
            size = file.seek(0, 2)
        if size != written.bytes:
            return f"{name} has {size} bytes, {written.bytes} were written"
        if deep and atomic.sha256(path / name) != written.sha256:
            return f"{name} is damaged (its sha256 differs)"
    except FileNotFoundError:
        return f"{name} is missing"
    except OSError as error:
        return f"{name} cannot be read ({error.strerror or error})"
    return None


def _content_problem(path: Path) -> str | None:
    """Return the reason why files cannot be used although they match the manifest; None if there is none."""
    try:
        record = read_record(path)
    except AnotherVersionError:
        return None
    except (OSError, ResumeError) as error:
        return one_line(error)
    try:
        for name in (MODEL, OPTIMIZER):
            tensors = tensor_names(path / name)
            if not tensors and (name == MODEL or record.keeps_moments):
                return f"{name} holds no tensors"
    except (OSError, ValueError) as error:
        return f"{name} cannot be read ({one_line(error)})"
    return None


def newest_record(folder: Path) -> CheckpointRecord | None:
    """Read the record of the newest usable checkpoint in a folder; None if no record can be read.

    Records are verified, files with tensors only by their sizes. A checkpoint that is damaged or of another version of
    the program is passed over.
    """
    for listed in list_checkpoints(folder):
        if listed.problem is None and verify(listed.path, deep=False) is None:
            try:
                return read_record(listed.path)
            except (OSError, ResumeError):
                continue
    return None
