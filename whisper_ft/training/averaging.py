"""The mean of the weights of several checkpoints (Izmailov et al. 2018, arXiv 1803.05407): often better than each."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from whisper_ft import checkpoint
from whisper_ft.checkpoint.state import TrainState
from whisper_ft.config.training import TrainingConfig


def steps_to_average(state: TrainState, settings: TrainingConfig, steps: int) -> list[int]:
    """Steps of the checkpoints that the average is made of once the run is at this state; [] where none is made.

    A function of the settings and the evaluations: what a stop signal saved in between never counts.
    """
    count = settings.average.checkpoints
    if settings.average.of == "best":
        return sorted(state.best_steps(count, greater_is_better=settings.eval.greater_is_better))
    if settings.average.of == "none":
        return []
    every = settings.save.every or steps
    regular = list(range(every, state.step + 1, every))
    last = [state.step] if state.step >= steps and state.step not in regular else []
    return [*regular, *last][-count:]


def load_average(checkpoints: Sequence[Path], model: Any) -> None:
    """Put the mean of the weights of verified checkpoints into a model, summed in float64; tied weights stay tied."""
    with ExitStack() as stack, torch.no_grad():
        opened = [stack.enter_context(safe_open(path / checkpoint.MODEL, "pt")) for path in checkpoints]
        for name, parameter in model.named_parameters():
            mean = sum(file.get_tensor(name).double() for file in opened) / len(opened)
            parameter.copy_(mean.to(parameter.dtype))
