"""Settings that have no effect beside the value of another one, which a new run refuses."""

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, NamedTuple

from whisper_ft.config.optimization import ScalerConfig
from whisper_ft.config.setting import unused_message
from whisper_ft.config.training import TrainingConfig
from whisper_ft.config.tree import flatten, to_plain
from whisper_ft.runtime.errors import UsageError


class Dependence(NamedTuple):
    """Settings that have an effect only beside some values of another one."""

    names: tuple[str, ...]
    other: str
    """Dotted name of the setting that they need."""
    has_effect: Callable[[Any], bool]
    """True for the values of `other` beside which they have an effect."""
    remedy: str
    """Argument that gives them an effect."""


DEPENDENCES = (
    Dependence(("schedule.decay",), "schedule.kind", lambda kind: kind == "wsd", "--schedule.kind wsd"),
    Dependence(("optim.momentum",), "optim.name", lambda name: name == "sgd", "--optim.name sgd"),
    Dependence(("optim.betas", "optim.eps"), "optim.name", lambda name: "adamw" in name, "--optim.name adamw"),
    Dependence(
        tuple(f"scaler.{one.name}" for one in fields(ScalerConfig)),
        "precision",
        lambda precision: precision in ("fp16", "auto"),  # auto may become fp16, on a GPU that is not known yet
        "--precision fp16",
    ),
    Dependence(("scaler.growth_every",), "scaler.growth", lambda factor: factor > 1, "--scaler.growth 2"),
    Dependence(
        ("augment.time_mask_seconds", "augment.time_mask_share"), "augment.time_masks", bool, "--augment.time_masks 2"
    ),
    Dependence(("augment.time_masks",), "augment.time_mask_seconds", bool, "--augment.time_mask_seconds 1"),
    Dependence(("augment.time_masks",), "augment.time_mask_share", bool, "--augment.time_mask_share 0.2"),
    Dependence(("augment.frequency_mask_bins",), "augment.frequency_masks", bool, "--augment.frequency_masks 2"),
    Dependence(("augment.frequency_masks",), "augment.frequency_mask_bins", bool, "--augment.frequency_mask_bins 27"),
    Dependence(("data.prefetch",), "data.workers", bool, "--data.workers 2"),
    Dependence(("average.checkpoints",), "average.of", lambda of: of != "none", "--average.of last"),
    Dependence(
        ("track.project", "track.name"),
        "track.to",
        lambda trackers: not {"wandb", "trackio"}.isdisjoint(trackers),  # tensorboard knows a run by its folder
        "--track.to '[wandb]'",
    ),
)
"""Each place that reads a setting under a condition has its row here."""


def chosen_settings(config: TrainingConfig, given: Mapping[str, str]) -> dict[str, Any]:
    """Return the settings that the user chose, by dotted name, with their values.

    They are those on the command line, and those in a --config file that differ from their default. A default in a file
    is no choice, because the config.yaml of a run holds every setting and must serve again.

    `given` is what `whisper_ft.config.parse.given_settings` returns.
    """
    values, defaults = flatten(to_plain(config)), flatten(to_plain(TrainingConfig()))
    is_choice = {name: not file or values.get(name) != defaults.get(name) for name, file in given.items()}
    return {name: value for name, value in values.items() if is_choice.get(name)}


def refuse_unused_settings(config: TrainingConfig, given: Mapping[str, str]) -> None:
    """Raise UsageError for a setting that the user chose and that has no effect beside another one (DEPENDENCES).

    It is for new runs. A run of earlier versions may have such a setting, and continues.
    """
    values, chosen = flatten(to_plain(config)), chosen_settings(config, given)
    for names, other, has_effect, remedy in DEPENDENCES:
        for name in (one for one in names if one in chosen):
            if not has_effect(values[other]):
                state = f"{other} is {values[other]}"
                raise UsageError(unused_message(name, values[name], state, f"set {remedy}"))
