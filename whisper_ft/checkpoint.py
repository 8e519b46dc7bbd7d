"""Checkpoints: what a run is at the end of a step, whole or not there, verified before it is used. No pickle.

A checkpoint is a folder `step-00001000` of safetensors and JSON with a manifest of every file's size and sha256. It is
filled under another name, made durable and renamed; the rename is the commit. They are ordered by a save counter in
the manifest, never by a clock. Protocol and evidence: docs/decisions/0004-checkpoints.md.
"""

import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, load_model, save_file, save_model

from whisper_ft import durable
from whisper_ft.failure import NonFiniteError, ResumeError

MODEL, OPTIMIZER, TRAINER, MANIFEST = "model.safetensors", "optimizer.safetensors", "trainer.json", "manifest.json"


@dataclass(frozen=True)
class Found:
    """A committed checkpoint; `problem` says in a line why its manifest cannot be used."""

    path: Path
    step: int
    save: int
    problem: str | None = None


def save(
    folder: Path,
    step: int,
    parent: str | None,
    model: Any,
    optimizer: dict[str, torch.Tensor],
    trainer: dict[str, Any],
) -> Path:
    """Commit a checkpoint of a step and return its folder. `parent` is the name of the one before. Main process only.

    NonFiniteError rather than a checkpoint with a NaN in it; DiskError, with nothing damaged, if it cannot be written.
    """
    for name, parameter in model.named_parameters():
        if not torch.isfinite(parameter).all():
            raise NonFiniteError(f"{name} has values that are not finite at step {step}; nothing was saved")
    final = folder / f"step-{step:08d}"
    counter = 1 + max((found.save for found in list_checkpoints(folder)), default=0)
    with durable.new_folder(final) as aside:
        save_model(model, str(aside / MODEL))
        save_file({name: tensor.contiguous() for name, tensor in optimizer.items()}, aside / OPTIMIZER)
        durable.write_json(aside / TRAINER, trainer)
        files = {
            path.name: {"bytes": path.stat().st_size, "sha256": durable.sha256(path)}
            for path in sorted(aside.iterdir())
        }
        manifest = {"step": step, "save": counter, "parent": parent if parent != final.name else None, "files": files}
        durable.write_json(aside / MANIFEST, manifest)
    return final


def list_checkpoints(folder: Path) -> list[Found]:
    """Everything here that has a checkpoint's name, newest save first; only manifests are read, not the other files."""
    found = []
    for path in folder.glob("step-*"):
        if not path.is_dir() or path.is_symlink() or not path.name.removeprefix("step-").isdigit():
            continue
        step = int(path.name.removeprefix("step-"))
        try:
            manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
            found.append(Found(path, step, int(manifest["save"])))
        except (OSError, ValueError, KeyError, TypeError) as error:
            found.append(Found(path, step, 0, f"its {MANIFEST} cannot be read ({error})"))
    # Those whose place in the order is unknown come first, so that they are named before another is used.
    return sorted(found, key=lambda one: (one.problem is not None, one.save), reverse=True)


def verify(path: Path) -> str | None:
    """Why a checkpoint cannot be used, in a line; None if every byte is what was written."""
    try:
        files = json.loads((path / MANIFEST).read_text(encoding="utf-8"))["files"]
        for name in (MODEL, OPTIMIZER, TRAINER):
            if name not in files:
                return f"its {MANIFEST} does not list {name}"
        for name, expected in files.items():
            if Path(name).name != name:
                return f"its {MANIFEST} names a file outside of it: {name}"
            if not (path / name).is_file():
                return f"{name} is missing"
            size = (path / name).stat().st_size
            if size != expected["bytes"]:
                return f"{name} has {size} bytes, {expected['bytes']} were written"
            if durable.sha256(path / name) != expected["sha256"]:
                return f"{name} is damaged (its sha256 differs)"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"its {MANIFEST} cannot be read ({error})"
    return None


def choose(folder: Path, resume: str, best_step: int | None, say: Callable[[str], None]) -> Path | None:
    """The checkpoint to go on from, deeply verified; None for a fresh start. ResumeError when all are damaged.

    `resume`: auto takes the newest usable one, best the one of `best_step`, anything else is a checkpoint's path. Where
    the newest one was saved by a run that began so (its `branch`), the same command was interrupted and goes on there.
    """
    candidates = list_checkpoints(folder)
    if resume == "auto":
        return _newest_usable(candidates, say)
    for found in candidates:
        if found.problem is None and verify(found.path) is None:
            branch = read_trainer(found.path).get("branch")
            if branch and branch["resume"] == branch_name(resume):
                say(
                    f"--resume {resume} began at step {branch['step']} and goes on from its newest checkpoint; "
                    "to begin anew, name a checkpoint's folder or another --run_dir"
                )
                return found.path
            break
    if resume != "best":
        if problem := verify(Path(resume)):
            raise ResumeError(f"--resume {resume}: not usable: {problem}")
        return Path(resume)
    of_best_step = [found for found in candidates if found.step == best_step]
    if not of_best_step:
        raise ResumeError(f"--resume best: {folder} holds no checkpoint of the best step")
    return _newest_usable(of_best_step, say)


def branch_name(resume: str) -> str:
    """What a run that began with `--resume` remembers it by: best, or the full path."""
    return resume if resume == "best" else str(Path(resume).resolve())


def _newest_usable(candidates: Sequence[Found], say: Callable[[str], None]) -> Path | None:
    """The first that verifies, a line for each before it; None of none, ResumeError if all are damaged."""
    for found in candidates:
        problem = found.problem or verify(found.path)
        if problem is None:
            return found.path
        say(f"checkpoint {found.path.name} is not usable: {problem}; trying the one before")
    if candidates:
        raise ResumeError(
            f"{candidates[0].path.parent} holds {len(candidates)} checkpoints and none is usable; this run will not "
            "start from zero by itself. Choose another --run_dir, or move this one away, to start anew"
        )
    return None


def read_trainer(path: Path) -> dict[str, Any]:
    """What was recorded beside the tensors: state, configuration, data, versions."""
    trainer: dict[str, Any] = json.loads((path / TRAINER).read_text(encoding="utf-8"))
    return trainer


def newest_config(folder: Path) -> dict[str, Any] | None:
    """The configuration that the newest checkpoint was saved with; None where none can be read. Verifies nothing."""
    for found in list_checkpoints(folder):
        try:
            config = read_trainer(found.path)["config"]
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if found.problem is None and isinstance(config, dict):
            return config
    return None


def load_weights(path: Path, model: Any) -> None:
    """Put a checkpoint's weights into a model of the same shape; tied weights stay tied. ResumeError."""
    try:
        load_model(model, str(path / MODEL), strict=True)
    except (RuntimeError, SafetensorError) as error:
        raise ResumeError(f"{path}: the weights do not fit this model: {' '.join(str(error).split())}") from error


def load_optimizer(path: Path) -> dict[str, torch.Tensor]:
    """A checkpoint's optimizer state by name."""
    return dict(load_file(path / OPTIMIZER))


def retain(folder: Path, keep: int, also: Collection[int]) -> None:
    """Remove all but the newest `keep` checkpoints, the best of each of those, and the steps in `also`.

    The best of a kept one is needed when the ones after it turn out to be damaged: best/ is then made from it. What is
    damaged or not ours is never removed.
    """
    found = [one for one in list_checkpoints(folder) if one.problem is None]
    needed = {*also} | {one.step for one in found[:keep]}
    needed |= {best for one in found if one.step in needed and (best := _best_step(one.path)) is not None}
    for one in found:
        if one.step not in needed:
            durable.remove(one.path)


def _best_step(path: Path) -> int | None:
    """Step of the best model when a checkpoint was saved; None where there was none or it cannot be read."""
    try:
        return int(read_trainer(path)["state"]["best"]["step"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
