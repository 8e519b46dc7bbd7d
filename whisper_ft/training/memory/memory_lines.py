"""Lines about the memory of a training step, for the start of a run and for `python -m whisper_ft estimate`."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from whisper_ft.config.training import TrainingConfig
from whisper_ft.training.memory.memory_estimate import MemoryEstimate
from whisper_ft.training.memory.memory_fit import RESERVE, estimate_of, improvements, usable
from whisper_ft.training.memory.model_dimensions import ModelDimensions

if TYPE_CHECKING:
    import torch


def gigabytes(count: float) -> str:
    """Return a number of bytes in GB (10^9 bytes), with one decimal, or two below 1 GB."""
    return f"{count / 1e9:.{1 if count >= 1e9 else 2}f} GB"


def parts_line(step: MemoryEstimate) -> str:
    """Return the parts of an estimate in one line, largest first; parts below 10 MB are left out."""
    parts = sorted(step.parts.items(), key=lambda part: -part[1])
    return ", ".join(f"{name} {gigabytes(count)}" for name, count in parts if count >= 1e7)


def card_lines(
    config: TrainingConfig, model: Mapping[str, Any], device: "torch.device", processes: int
) -> Iterator[str]:
    """Yield the lines for the start of a run on a device; none for a CPU. `model` has the keys of config.json."""
    if device.type == "cuda":
        import torch  # in this process already; the other lines need none

        card = torch.cuda.get_device_properties(device).total_memory
        yield from start_lines(config, ModelDimensions.from_config(model), card, processes=processes)


def start_lines(
    config: TrainingConfig, model: ModelDimensions, card_bytes: int, *, processes: int = 1
) -> Iterator[str]:
    """Yield the estimate for a GPU of so many bytes, and if it does not fit, the settings to change in order."""
    step = estimate_of(config, model, on_gpu=True, processes=processes)
    yield f"memory of a step: about {gigabytes(step.total)} of {gigabytes(card_bytes)} ({parts_line(step)})"
    if step.total <= usable(card_bytes):
        return
    yield (
        f"this may not fit, because {RESERVE:.0%} of the card stay unused and labels may be {model.label_positions} "
        "tokens long. Change in this order, each on top of the ones before:"
    )
    yield from improvement_lines(config, model, card_bytes, processes=processes)


def improvement_lines(
    config: TrainingConfig, model: ModelDimensions, card_bytes: int, *, processes: int = 1
) -> Iterator[str]:
    """Yield a line for each setting to change, with the memory that a step then takes. The last one fits, or none."""
    room, last = usable(card_bytes), None
    for remedy, last in improvements(config, model, room, on_gpu=True, processes=processes):
        yield f"  {remedy}: about {gigabytes(last.total)}{', which fits' if last.total <= room else ''}"
    if last is None or last.total > room:
        yield "  none of these suffices: a smaller model, or a larger card"
