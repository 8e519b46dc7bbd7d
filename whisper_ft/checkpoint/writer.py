"""Writing of a checkpoint: collect its contents at the end of a step, and write the files then or later."""

import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from whisper_ft.checkpoint.checkpoint_manifest import MANIFEST, Manifest, WrittenFile
from whisper_ft.checkpoint.format import MODEL, OPTIMIZER, list_checkpoints, path_of
from whisper_ft.checkpoint.record import TRAINER, CheckpointRecord
from whisper_ft.checkpoint.safetensors_stream import parts
from whisper_ft.runtime import atomic
from whisper_ft.runtime.errors import NonFiniteError
from whisper_ft.runtime.printable import json_text


@dataclass(frozen=True)
class Contents:
    """Everything that goes into a checkpoint."""

    step: int
    weights: dict[str, torch.Tensor]
    optimizer: dict[str, torch.Tensor]
    record: bytes
    """Bytes of trainer.json."""

    @property
    def size(self) -> int:
        """Size of the files in bytes, without the manifest and the small headers."""
        tensors = [*self.weights.values(), *self.optimizer.values()]
        return sum(tensor.nbytes for tensor in tensors) + len(self.record)


def contents_of(
    model: torch.nn.Module,
    optimizer: Mapping[str, torch.Tensor],
    record: CheckpointRecord,
    *,
    copied: bool,
    without: Collection[str] = (),
) -> Contents:
    """Collect the contents of a checkpoint at the end of a step. Tied weights are kept once, under their first name.

    Parameters
        optimizer: tensors of the optimizer state by name.
        copied: copy all tensors to host memory, so that training may continue while they are written. Otherwise the
            contents share the memory of the model and the optimizer.
        without: names of weights to leave out, such as those of a frozen base.

    Raises NonFiniteError if a parameter of the model is NaN or infinite, one in `without` included.
    """
    step = record.state.step
    for name, parameter in model.named_parameters():
        if not torch.isfinite(parameter).all():
            raise NonFiniteError(f"{name} has values that are not finite at step {step}; nothing was saved")

    def kept(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.detach().to("cpu", copy=True) if copied else tensor.detach()

    weights: dict[str, torch.Tensor] = {}
    seen: set[int] = set()
    for name, tensor in model.state_dict(keep_vars=True).items():
        if name in without:
            continue
        if (
            id(tensor) not in seen
        ):  # tied weights are written once, under their first name, as `from_pretrained` expects
            seen.add(id(tensor))
            weights[name] = kept(tensor)
    moments = {name: kept(tensor) for name, tensor in optimizer.items()}
    return Contents(step, weights, moments, _json(record.to_json()))


def write(folder: Path, parent: str | None, contents: Contents) -> Path:
    """Write a checkpoint, commit it and return its folder. Only the main process may call this.

    Parameters
        folder: checkpoints folder of the run.
        parent: name of the checkpoint before this one; None for the first.

    An earlier checkpoint of the same step is replaced. Raises DiskError if the checkpoint cannot be written. Earlier
    checkpoints then stay intact.
    """
    final = path_of(folder, contents.step)
    counter = 1 + max((listed.save for listed in list_checkpoints(folder)), default=0)
    with atomic.new_folder(final, contents.size) as aside:
        files = {
            MODEL: _written(aside / MODEL, parts(contents.weights)),
            OPTIMIZER: _written(aside / OPTIMIZER, parts(contents.optimizer)),
            TRAINER: _written(aside / TRAINER, [contents.record]),
        }
        earlier = parent if parent != final.name else None
        written_at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        manifest = Manifest(contents.step, counter, earlier, written_at, files)
        atomic.write_parts(aside / MANIFEST, [_json(manifest.to_json())])
    return final


def _written(path: Path, content: Iterable[bytes | memoryview]) -> WrittenFile:
    told = atomic.write_parts(path, content)
    return WrittenFile(int(told["bytes"]), str(told["sha256"]))


def _json(value: dict[str, Any]) -> bytes:
    return (json_text(value, indent=2) + "\n").encode()
