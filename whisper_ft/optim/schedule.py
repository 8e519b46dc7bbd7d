"""Learning rate and cadence as pure functions of the step, so that a checkpoint holds no scheduler."""

import math

from whisper_ft.config.optimization import OptimConfig, ScheduleConfig
from whisper_ft.config.setting import ScheduleKind


def lr_factor(step: int, steps: int, kind: ScheduleKind, warmup: int, decay: int) -> float:
    """Factor in [0, 1] for the peak learning rate of update `step` (counted from 0) in a run of `steps` updates.

    The warm-up rises in equal parts to 1, and its first update has a rate above 0. Then `linear` and `cosine` fall
    until `steps`, and `constant` stays. `wsd` (warm-up, stable, decay: Hu et al. 2024, arXiv 2404.06395) stays at 1 and
    falls linearly over the last `decay` updates. A step beyond the end has the factor of the last update.
    """
    step = min(step, steps - 1)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if kind == "constant":
        return 1.0
    if kind == "wsd":
        return min(1.0, (steps - step) / max(decay, 1))
    remaining = (steps - step) / max(steps - warmup, 1)
    return remaining if kind == "linear" else 0.5 * (1.0 - math.cos(math.pi * remaining))


def steps_of(duration: float, steps: int) -> int:
    """Number of updates in a duration. A duration below 1 is a share of the run's `steps`, rounded."""
    return round(duration * steps) if duration < 1 else int(duration)


def due(step: int, every: int, last: bool = False) -> bool:
    """True after each `every`-th step, counting step 0, and after the last step; always False if `every` is 0."""
    return every > 0 and (last or step % every == 0)


def learning_rate(step: int, steps: int, optim: OptimConfig, schedule: ScheduleConfig) -> float:
    """Learning rate of update `step` (counted from 0) in a run of `steps` updates, before each group's `lr_factor`."""
    warmup, decay = steps_of(schedule.warmup, steps), steps_of(schedule.decay, steps)
    return optim.peak_lr * lr_factor(step, steps, schedule.kind, warmup, decay)
