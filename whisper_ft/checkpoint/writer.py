"""How a checkpoint comes to be: first what it is made of, at the end of a step; then its files, at any later time."""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from whisper_ft.checkpoint.format import MANIFEST, MODEL, OPTIMIZER, TRAINER, list_checkpoints, path_of
from whisper_ft.checkpoint.safetensors_stream import parts
from whisper_ft.runtime import atomic
from whisper_ft.runtime.errors import NonFiniteError


@dataclass(frozen=True)
class Contents:
    """What a checkpoint is made of."""

    step: int
    weights: dict[str, torch.Tensor]
    optimizer: dict[str, torch.Tensor]
    trainer: bytes

    @property
    def size(self) -> int:
        """Bytes of its files, but for a few of headers and manifest."""
        tensors = [*self.weights.values(), *self.optimizer.values()]
        return sum(tensor.nbytes for tensor in tensors) + len(self.trainer)


def contents_of(
    step: int, model: Any, optimizer: Mapping[str, torch.Tensor], trainer: dict[str, Any], *, copied: bool
) -> Contents:
    """What a model and its training are at the end of a step. NonFiniteError rather than a checkpoint with a NaN in it.

    `copied` to the memory of the host, so that training may go on while it is written; else to be written at once.
    """
    for name, parameter in model.named_parameters():
        if not torch.isfinite(parameter).all():
            raise NonFiniteError(f"{name} has values that are not finite at step {step}; nothing was saved")

    def kept(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.detach().to("cpu", copy=True) if copied else tensor.detach()

    weights: dict[str, torch.Tensor] = {}
    seen: set[int] = set()
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) not in seen:  # tied weights once, under their first name, as `from_pretrained` wants them
            seen.add(id(tensor))
            weights[name] = kept(tensor)
    moments = {name: kept(tensor) for name, tensor in optimizer.items()}
    return Contents(step, weights, moments, _json(trainer))


def write(folder: Path, parent: str | None, contents: Contents) -> Path:
    """Commit a checkpoint and return its folder. `parent` is the name of the one before. Main process only.

    DiskError, with nothing damaged, if it cannot be written.
    """
    final = path_of(folder, contents.step)
    counter = 1 + max((found.save for found in list_checkpoints(folder)), default=0)
    with atomic.new_folder(final, contents.size) as aside:
        files = {
            MODEL: atomic.write_parts(aside / MODEL, parts(contents.weights)),
            OPTIMIZER: atomic.write_parts(aside / OPTIMIZER, parts(contents.optimizer)),
            TRAINER: atomic.write_parts(aside / TRAINER, [contents.trainer]),
        }
        manifest = {
            "step": contents.step,
            "save": counter,
            "parent": parent if parent != final.name else None,
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),  # for people: a clock orders nothing
            "files": files,
        }
        atomic.write_parts(aside / MANIFEST, [_json(manifest)])
    return final


def save(
    folder: Path,
    step: int,
    parent: str | None,
    model: Any,
    optimizer: Mapping[str, torch.Tensor],
    trainer: dict[str, Any],
) -> Path:
    """Commit a checkpoint of a step as it is now, and return its folder. NonFiniteError, DiskError."""
    return write(folder, parent, contents_of(step, model, optimizer, trainer, copied=False))


def _json(value: dict[str, Any]) -> bytes:
    return (json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False) + "\n").encode()
