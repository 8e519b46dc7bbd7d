"""Whisper read from the file of another engine: its architecture, weights and vocabulary under transformers' names."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch

from whisper_ft.runtime.errors import UsageError

KERNEL = 3  # width of both convolutions of every Whisper
MOST_LAYERS = 1_000  # limit of a plausible header; large has 32


LAYER_PARTS = (
    *(f"self_attn.{part}_proj" for part in ("q", "k", "v", "out")),
    *("self_attn_layer_norm", "fc1", "fc2", "final_layer_norm"),
)
DECODER_PARTS = (*(f"encoder_attn.{part}_proj" for part in ("q", "k", "v", "out")), "encoder_attn_layer_norm")


def tensor_names(encoder_layers: int, decoder_layers: int) -> Iterator[str]:
    """Yield the names in the state dict of WhisperForConditionalGeneration, without the tied output layer."""
    yield from _both("model.encoder.conv1", "model.encoder.conv2")
    yield from ("model.encoder.embed_positions.weight", "model.decoder.embed_positions.weight")
    yield "model.decoder.embed_tokens.weight"
    for side, count, parts in (
        ("encoder", encoder_layers, LAYER_PARTS),
        ("decoder", decoder_layers, LAYER_PARTS + DECODER_PARTS),
    ):
        yield from _both(f"model.{side}.layer_norm")
        for layer in range(count):
            yield from _both(*(f"model.{side}.layers.{layer}.{part}" for part in parts))


def _both(*modules: str) -> Iterator[str]:
    """Yield weight and bias of each module. The layers of keys have no bias."""
    for module in modules:
        yield f"{module}.weight"
        if not module.endswith("k_proj"):
            yield f"{module}.bias"


@dataclass(frozen=True)
class Architecture:
    """Sizes of a Whisper, under the names that WhisperConfig has for them."""

    vocab_size: int
    d_model: int
    num_mel_bins: int
    max_source_positions: int
    max_target_positions: int
    encoder_layers: int
    decoder_layers: int
    encoder_attention_heads: int
    decoder_attention_heads: int
    encoder_ffn_dim: int
    decoder_ffn_dim: int

    def problem(self) -> str | None:
        """Return the reason why no Whisper has these sizes, or None."""
        for name, value in vars(self).items():
            if value <= 0:
                return f"{name} is {value}; expected a positive number"
        for side in ("encoder", "decoder"):
            heads = getattr(self, f"{side}_attention_heads")
            if self.d_model % heads:
                return f"{heads} attention heads in the {side} do not divide the width {self.d_model}"
        if max(self.encoder_layers, self.decoder_layers) > MOST_LAYERS:
            return f"{self.encoder_layers} + {self.decoder_layers} layers; expected at most {MOST_LAYERS} each"
        return None

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of each tensor in the state dict, without the tied output layer."""
        return {name: self._shape(name) for name in tensor_names(self.encoder_layers, self.decoder_layers)}

    def _shape(self, name: str) -> tuple[int, ...]:
        d, side = self.d_model, name.split(".")[1]
        inner = getattr(self, f"{side}_ffn_dim")
        layer, kind = name.split(".")[-2:]
        inputs = {"conv1": (self.num_mel_bins, KERNEL), "conv2": (d, KERNEL), "fc2": (inner,)}.get(layer, (d,))
        if "norm" in layer:
            inputs = ()
        if layer == "embed_tokens":
            return (self.vocab_size, d)
        if layer == "embed_positions":
            return (self.max_source_positions if side == "encoder" else self.max_target_positions, d)
        outputs = inner if layer == "fc1" else d
        return (outputs,) if kind == "bias" else (outputs, *inputs)


@dataclass(frozen=True)
class ForeignModel:
    """A model in the file of another engine.

    Weights stay in the file until they are read, one at a time, so that memory stays bounded.
    """

    path: Path
    engine: str
    architecture: Architecture
    dtype: torch.dtype
    """Type in which the weights are written: float16 if all are stored so, otherwise float32, which holds all types."""
    read: Callable[[str], np.ndarray]
    """Reads the tensor of a name of transformers, as float16 or float32."""
    vocabulary: list[bytes]
    """Tokens before <|endoftext|>, by id."""
    special: tuple[str, ...] = ()
    """Tokens from <|endoftext|> on, if the file names them."""
    generation: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the generation config that the file states."""
    notes: tuple[str, ...] = ()
    """Lines for the user, such as the loss by quantisation."""

    @property
    def bytes_written(self) -> int:
        """Size of all weights in the type in which they are written."""
        return self.dtype.itemsize * sum(prod(shape) for shape in self.architecture.shapes().values())

    def tensor(self, name: str) -> torch.Tensor:
        """Read a tensor in the type in which it is written."""
        values = self.read(name)
        return torch.from_numpy(np.array(values, dtype=values.dtype.newbyteorder("="))).to(self.dtype)


def check_shapes(path: Path, architecture: Architecture, found: Mapping[str, tuple[int, ...]]) -> None:
    """Raise UsageError unless a file has exactly the tensors of an architecture. `found` has transformers' names."""
    if problem := architecture.problem():
        raise UsageError(f"{path}: not a Whisper: {problem}")
    expected = architecture.shapes()
    for problem, names in (("lacks", expected.keys() - found.keys()), ("has unknown", found.keys() - expected.keys())):
        if names:
            raise UsageError(f"{path}: the file {problem} {len(names)} tensors of a Whisper, such as {min(names)}")
    for name, shape in expected.items():
        if tuple(found[name]) != shape:
            raise UsageError(f"{path}: {name} has the shape {tuple(found[name])}; expected {shape}")


def layer_counts(names: set[str], prefix: Callable[[str], str]) -> dict[str, int]:
    """Count the layers of encoder and decoder by the names of their tensors: `prefix(side)` begins those of layers."""
    return {
        side: len({name[len(start) :].split(".")[0].split("/")[0] for name in names if name.startswith(start)})
        for side in ("encoder", "decoder")
        for start in [prefix(side)]
    }
