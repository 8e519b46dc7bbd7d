"""Fit of a training step into a memory: the largest pass, and the settings that make a step smaller, in order."""

from collections.abc import Iterator
from typing import NamedTuple

from whisper_ft.config.memory_advice import Remedy, training_remedies
from whisper_ft.config.training import TrainingConfig
from whisper_ft.config.tree import with_values
from whisper_ft.training.memory.memory_estimate import MemoryEstimate, estimate
from whisper_ft.training.memory.model_dimensions import ModelDimensions
from whisper_ft.training.memory.workload import Workload

RESERVE = 0.05
"""Share of a card that a run leaves free. torch's allocator cannot use all of it, because free blocks lie scattered."""
MOST_WINDOWS = 1024  # largest pass that is looked for; more windows make no step faster


class Improved(NamedTuple):
    """A setting to change, and the estimate with it and all changes before it."""

    remedy: Remedy
    estimate: MemoryEstimate


def usable(card_bytes: int) -> int:
    """Return the bytes of a card that a step may take."""
    return int(card_bytes * (1 - RESERVE))


def largest_pass(work: Workload, room: int) -> int:
    """Return the most windows of a pass with which a step takes at most `room` bytes; 0 if one is too many."""
    fits, fails = 0, MOST_WINDOWS + 1
    while fails - fits > 1:
        middle = (fits + fails) // 2
        if estimate(work.with_windows(middle)).total <= room:
            fits = middle
        else:
            fails = middle
    return fits


def windows_of(config: TrainingConfig, processes: int) -> int:
    """Return the windows of a pass: batch.per_device, at most those of the process's share. `auto` counts as all."""
    share = -(-config.batch.size // processes)
    return share if config.batch.per_device == "auto" else min(config.batch.per_device, share)


def estimate_of(config: TrainingConfig, model: ModelDimensions, *, on_gpu: bool, processes: int = 1) -> MemoryEstimate:
    """Return the estimate for a run's settings."""
    windows = windows_of(config, processes)
    return estimate(Workload.of(config, model, on_gpu=on_gpu, windows=windows, processes=processes))


def improvements(
    config: TrainingConfig, model: ModelDimensions, room: int, *, on_gpu: bool, processes: int = 1
) -> Iterator[Improved]:
    """Yield the settings to change, in order, each on top of those before it, until the step takes at most `room`.

    Halvings of batch.per_device in a row are one change. Nothing is yielded if the step fits already.
    """
    waiting: Improved | None = None
    while estimate_of(config, model, on_gpu=on_gpu, processes=processes).total > room:
        remedy = next(training_remedies(config), None)
        if remedy is None:
            break
        if waiting is not None and remedy.name == waiting.remedy.name:
            remedy = remedy._replace(present=waiting.remedy.present)
        elif waiting is not None:
            yield waiting
        config = with_values(config, {remedy.name: remedy.value})
        waiting = Improved(remedy, estimate_of(config, model, on_gpu=on_gpu, processes=processes))
    if waiting is not None:
        yield waiting
