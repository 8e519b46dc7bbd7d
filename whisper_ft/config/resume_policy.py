"""Comparison of the settings in a checkpoint with those of the command line that resumes the run."""

import re
from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

from whisper_ft.config.data import WeightedSourceConfig
from whisper_ft.config.evaluation import EvalSetConfig
from whisper_ft.config.setting import UNSET, ResumeRule
from whisper_ft.config.training import TrainingConfig
from whisper_ft.config.tree import flatten, leaves, to_plain, with_values
from whisper_ft.runtime.errors import UsageError

SECTIONS_OF_LISTS = {"data.sources.": WeightedSourceConfig, "eval.sets.": EvalSetConfig}
"""Settings whose value is a list of sections: prefix of the names in a section, and the class of a section."""
FREE_SECTIONS = ("eval.sets.",)
"""Prefixes of sections in which every setting is free, also one that is exact in data.*. No value in them is taken over
from a checkpoint, because their order may change."""


class SettingChange(NamedTuple):
    """A setting whose value differs from the recorded one."""

    name: str
    saved: Any
    now: Any

    def __str__(self) -> str:
        return f"{self.name} was {self.saved!r} and is {self.now!r}"


def as_resumed(config: TrainingConfig, given: Collection[str], saved: dict[str, Any]) -> TrainingConfig:
    """Return the configuration of a resumed run.

    A setting with the value `auto` gets its recorded value. A setting that is newer than the checkpoint keeps the value
    `before`, which runs had before the setting existed. Every other setting stays as in `config`, even if it differs
    from the checkpoint.

    Parameters
        given: dotted names of the settings that the user gave. These do not get the value `before`.
        saved: configuration in the checkpoint, as `to_plain` returns it.
    """
    then, now, metadata = _settings(saved), _settings(to_plain(config)), _metadata()
    values: dict[str, Any] = {}
    for name in now:
        data = metadata[_without_numbers(name)]
        auto, before = data.get("auto", UNSET), data["before"]
        if name not in then:
            if before is not UNSET and name not in given and now[name] == data["default"]:
                values[name] = before
        elif auto is not UNSET and now[name] == auto:
            values[name] = then[name]
    return with_values(config, values)


def refuse_changes(
    saved: dict[str, Any], config: TrainingConfig, checkpoint: Path | None = None
) -> list[SettingChange]:
    """Return the changed settings that may change, because `allow_change` names them.

    Raises UsageError if any other setting changed that is not free.

    Parameters
        saved: configuration in the checkpoint, as `to_plain` returns it.
        checkpoint: folder of that checkpoint, for the error message; None for one of the run itself.
    """
    now = to_plain(config)
    is_own = checkpoint is None or config.run_dir.resolve() in checkpoint.resolve().parents
    holder = f"{config.run_dir} holds a run" if is_own else f"{checkpoint} is of a run"
    other_place = ", or choose another --run_dir" if is_own else ""
    if exact := differences(saved, now, "exact"):
        raise UsageError(
            f"{holder} with another configuration: {', '.join(map(str, exact))}. Continue it with the old value"
            f"{other_place}"
        )
    changes = differences(saved, now, "change")
    if refused := [change for change in changes if change.name not in config.allow_change]:
        names = ", ".join(change.name for change in refused)
        raise UsageError(
            f"{holder} with another configuration: {', '.join(map(str, refused))}. Continue it with the old value, "
            f"allow it with --allow_change '[{names}]'{other_place}"
        )
    return changes


def differences(saved: dict[str, Any], now: dict[str, Any], kind: ResumeRule) -> list[SettingChange]:
    """Return the changed settings among those with one resume rule, in the order of the configuration.

    `to_plain` returned both configurations. A setting that `saved` lacks is compared by its value `before`, or else by
    its default. A setting that no longer exists is ignored, and so is one of a source that `saved` lacks.
    """
    then, today, metadata = _settings(saved), _settings(now), _metadata()
    changes = []
    for name, value in today.items():
        data = metadata[_without_numbers(name)]
        was = then[name] if name in then else _before(name, value, data)
        if data["resume"] == kind and was != value:
            changes.append(SettingChange(name, was, value))
    return changes


def _before(name: str, value: Any, data: dict[str, Any]) -> Any:
    """Return the value of a setting in a run whose checkpoint does not contain it.

    The checkpoint was written before the setting existed, or its list of sections is shorter. In the second case the
    present value is returned, because the length of the list already counts as the change.
    """
    if data["before"] is not UNSET:
        return data["before"]
    return value if _without_numbers(name) != name else data["default"]


def rules() -> dict[str, ResumeRule]:
    """Return the resume rule of every setting of a training run, by dotted name.

    A setting of data.sources or eval.sets is named without a number: `data.sources.weight`.
    """
    return {name: data["resume"] for name, data in _metadata().items()}


def _metadata() -> dict[str, dict[str, Any]]:
    """Return metadata and default of every setting, by dotted name."""
    found = [*leaves(TrainingConfig)]
    for prefix, section in SECTIONS_OF_LISTS.items():
        found += leaves(section, prefix)
    free = {"resume": "free", "before": UNSET, "auto": UNSET}
    return {
        name: {"before": UNSET, **leaf.metadata, "default": _default(leaf)}
        | (free if name.startswith(FREE_SECTIONS) else {})
        for name, leaf in found
    }


def _default(leaf: Any) -> Any:
    default = leaf.default_factory() if callable(leaf.default_factory) else leaf.default
    return str(default) if isinstance(default, Path) else list(default) if isinstance(default, tuple) else default


def _without_numbers(name: str) -> str:
    """Remove the numbers of list items from a dotted name: `data.sources.0.weight` becomes `data.sources.weight`."""
    return re.sub(r"\.\d+\.", ".", name)


def _settings(plain: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return settings by dotted name, as `flatten` does, but with the lists of SECTIONS_OF_LISTS split up.

    The value of such a list is its length. The settings of its sections have the number of the section in their names.
    """
    settings: dict[str, Any] = {}
    for name, value in flatten(plain, prefix).items():
        if not value or not isinstance(value, list) or f"{name}." not in SECTIONS_OF_LISTS:
            settings[name] = value
            continue
        settings[name] = len(value)
        for number, section in enumerate(value):
            settings |= _settings(section, f"{name}.{number}.")
    return settings
