"""Loading of a checkpoint's tensors: weights into a model, and the optimizer state by name."""

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, load_model

from whisper_ft.checkpoint.format import MODEL, OPTIMIZER
from whisper_ft.runtime.errors import ResumeError, one_line


def load_weights(path: Path, model: torch.nn.Module, *, without: frozenset[str] = frozenset()) -> None:
    """Copy the weights of a checkpoint into a model of the same shapes. Tied weights stay tied.

    Parameters
        without: names of the weights that the checkpoint leaves out, such as those of a frozen base.

    Raises ResumeError if a weight is missing, unknown or of another shape.
    """
    try:
        missing, unexpected = load_model(model, str(path / MODEL), strict=not without)
    except (RuntimeError, SafetensorError) as error:
        raise ResumeError(f"{path}: the weights do not fit this model: {one_line(error)}") from error
    if without and (unexpected or set(missing) - without):
        name = min([*unexpected, *(set(missing) - without)])
        raise ResumeError(f"{path}: the weights do not fit this model: {name} is unexpected or missing")


def load_optimizer(path: Path) -> dict[str, torch.Tensor]:
    """Read the optimizer state of a checkpoint: its tensors by name, on the CPU; empty if none were saved."""
    return dict(load_file(path / OPTIMIZER))
