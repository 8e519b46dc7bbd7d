"""Mixtures of two models of one architecture: each weight is a point on the line from the start to the tuned value.

A mixture often keeps most of what the tuning taught, and loses less of what the start model knew (Wortsman et al. 2022,
arXiv 2109.01903).
"""

import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

import torch
from safetensors import safe_open
from transformers import WhisperForConditionalGeneration

from whisper_ft.checkpoint.safetensors_stream import DTYPES, lazy_parts
from whisper_ft.models.adapters.base_identity import TIED_OUTPUT, weight_files, weights_identity
from whisper_ft.models.export.hf import WEIGHTS
from whisper_ft.runtime import atomic
from whisper_ft.runtime.errors import UsageError

Shapes = Mapping[str, tuple[torch.dtype, torch.Size]]
_TYPES = {name: dtype for dtype, name in DTYPES.items()}


class StoredWeights:
    """Weights of a model in its safetensors files, of which one tensor at a time is read.

    `name` is a folder or a name on the Hub. Raises UsageError if it has no safetensors.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._file_of: dict[str, Path] = {}
        self.shapes: dict[str, tuple[torch.dtype, torch.Size]] = {}
        """Type and shape of each tensor, by name."""
        for path in weight_files(name):
            with safe_open(path, "pt") as file:
                for key in file.keys():  # noqa: SIM118 - the file is no mapping
                    self._file_of[key] = path
                    part = file.get_slice(key)
                    self.shapes[key] = _TYPES[part.get_dtype()], torch.Size(part.get_shape())

    def read(self, key: str) -> torch.Tensor:
        """Read one tensor."""
        with safe_open(self._file_of[key], "pt") as file:
            tensor: torch.Tensor = file.get_tensor(key)
        return tensor

    @cached_property
    def sha256(self) -> str:
        """Hash of the stored weights."""
        return weights_identity(self.name)


class Mixture:
    """Weights on the line from a start model (`alpha` 0) to a tuned one (`alpha` 1).

    Raises UsageError if the two models have other tensors, or tensors of other shapes.
    """

    def __init__(self, start: StoredWeights, tuned: StoredWeights, alpha: float = 1.0) -> None:
        self.start, self.tuned, self.alpha = start, tuned, alpha
        # The output layer may be stored a second time, beside the token embedding that it is.
        both = [{key: shape for key, (_, shape) in one.shapes.items() if key != TIED_OUTPUT} for one in (start, tuned)]
        for key in sorted(both[0].keys() | both[1].keys()):
            mine, other = (one.get(key) for one in both)
            if mine != other:
                sizes = " and ".join("none" if size is None else str(tuple(size)) for size in (mine, other))
                raise UsageError(
                    f"{start.name} and {tuned.name} are no models of one architecture and vocabulary: {key} has the "
                    f"shapes {sizes}; a model can only be mixed with the one from which it was tuned"
                )

    def at(self, alpha: float) -> "Mixture":
        """Return another point on the same line."""
        return Mixture(self.start, self.tuned, alpha)

    @property
    def shapes(self) -> Shapes:
        """Type and shape of each tensor. The type is the wider one of the two models."""
        return {
            key: (torch.promote_types(self.start.shapes[key][0], dtype), shape)
            for key, (dtype, shape) in self.tuned.shapes.items()
            if key in self.start.shapes
        }

    def read(self, key: str) -> torch.Tensor:
        """Compute one tensor. At 0 and 1 it is that of the start or the tuned model, bit by bit."""
        return mixed(self.start.read(key), self.tuned.read(key), self.alpha)

    def load_into(self, model: WhisperForConditionalGeneration) -> None:
        """Copy the weights into a model of the architecture. Tied weights stay tied."""
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.copy_(self.read(name))

    def write(self, out: Path, files: Mapping[str, bytes]) -> None:
        """Write a complete model folder and publish it by rename. One tensor at a time is in memory.

        `files` are all files but the weights. In config.json, `dtype` becomes that of the weights. Raises DiskError if
        the folder cannot be written.
        """
        shapes = self.shapes
        config = json.loads(files["config.json"]) | {"dtype": str(_widest(shapes)).removeprefix("torch.")}
        size = sum(shape.numel() * dtype.itemsize for dtype, shape in shapes.values())
        with atomic.new_folder(out, size) as aside:
            atomic.write_parts(aside / WEIGHTS, lazy_parts(shapes, self.read))
            for name, content in {**files, "config.json": json.dumps(config, indent=2).encode() + b"\n"}.items():
                (aside / name).write_bytes(content)


def mixed(start: torch.Tensor, tuned: torch.Tensor, alpha: float) -> torch.Tensor:
    """Return start + alpha (tuned - start), computed in float64, in the wider type of the two.

    At 0 and 1 the values are those of `start` or `tuned`, without arithmetic.
    """
    dtype = torch.promote_types(start.dtype, tuned.dtype)
    if alpha in (0, 1):
        return (tuned if alpha else start).to(dtype)
    return torch.lerp(start.double(), tuned.double(), alpha).to(dtype)


def _widest(shapes: Shapes) -> torch.dtype:
    return max((dtype for dtype, _ in shapes.values()), key=lambda dtype: dtype.itemsize)
