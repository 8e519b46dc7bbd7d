"""What a resumed run may change: the rule of each setting, and how two configurations compare by it.

`python -m whisper_ft.config.resume_policy` prints docs/resume.md.
"""

import re
import sys
from collections.abc import Iterator
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

from whisper_ft.config.data import WeightedSourceConfig
from whisper_ft.config.setting import ResumeRule
from whisper_ft.config.training import TrainingConfig
from whisper_ft.config.tree import flatten, leaves, to_plain
from whisper_ft.runtime.command import exit_code_of
from whisper_ft.runtime.errors import UsageError

PAGE = """# What a resumed run may change

Made by `python -m whisper_ft.config.resume_policy > docs/resume.md` from the settings in `whisper_ft/config/`; a
test fails when the two differ, or when a setting has no rule.

The same command goes on with the newest whole checkpoint in its `run_dir`. What is given is compared with what stands
in that checkpoint, setting by setting:

- **exact**: must be what it was. Another value is another run: it is refused (exit code 2), for another `run_dir`.
- **change**: may change when it is named: `--allow_change '[optim.lr, steps]'`. Else it is refused, with this way out.
  The run says `was x, is y`, the next checkpoints record the new value, and the run is another one from there.
- **free**: may change at any time; it does not alter what is learned.

Not settings, and compared as well: the data (by the fingerprint of its files and rows: other data is refused, and the
message names what changed), and what evaluations are judged by (evaluation set, normaliser, metric, decoding,
precision: the run goes on, and `best` is judged anew, with a message). The number of processes may change: the batches
and the learning rate stay, the last bits do not. Where `optim.name` changes, the new optimizer starts without moments;
where `precision` becomes fp16, its loss scale starts at `scaler.initial`.

| setting | rule | default | meaning |
|---|---|---|---|
"""


def differences(saved: dict[str, Any], now: dict[str, Any], kind: ResumeRule) -> list[tuple[str, Any, Any]]:
    """(name, saved value, value now) of every setting under a rule that is not what it was; both as from `to_plain`."""
    # A setting that a checkpoint does not know came later: the run was trained with its default.
    then, today, kinds = {**_settings(to_plain(TrainingConfig())), **_settings(saved)}, _settings(now), rules()
    return [
        (name, then.get(name), value)
        for name, value in today.items()
        if kinds[re.sub(r"\.\d+\.", ".", name)] == kind and then.get(name, value) != value
    ]


def _settings(plain: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """As `flatten`, and each section of a list under its number, beside how many there are."""
    settings: dict[str, Any] = {}
    for name, value in flatten(plain, prefix).items():
        if not value or not isinstance(value, list) or not all(isinstance(section, dict) for section in value):
            settings[name] = value
            continue
        settings[name] = len(value)
        for number, section in enumerate(value):
            settings |= _settings(section, f"{name}.{number}.")
    return settings


def rules() -> dict[str, ResumeRule]:
    """The resume rule of every setting of a training run, by dotted name."""
    found = [*leaves(TrainingConfig), *leaves(WeightedSourceConfig, "data.sources.")]
    return {name: setting.metadata["resume"] for name, setting in found}


def page() -> str:
    """docs/resume.md."""
    rows = [*_rows(TrainingConfig, ""), *_rows(WeightedSourceConfig, "data.sources.N.")]
    return PAGE + "".join(f"| `{name}` | {rule} | {default} | {meaning} |\n" for name, rule, default, meaning in rows)


def _rows(cls: Any, prefix: str) -> Iterator[tuple[str, str, str, str]]:
    """Name, rule, default and meaning of each setting, in the order of the configuration."""
    from docstring_parser import parse_from_object  # jsonargparse reads the same docstrings for --help

    meanings = {
        attribute.arg_name: attribute.description or ""
        for base in reversed(cls.__mro__[:-1])
        for attribute in parse_from_object(base).params
    }
    hints = get_type_hints(cls)
    for found in cls.__dataclass_fields__.values():
        if is_dataclass(hints[found.name]):
            yield from _rows(hints[found.name], f"{prefix}{found.name}.")
        else:
            default = found.default_factory() if callable(found.default_factory) else found.default
            shown = "none" if default is None or default == "" else f"`{default}`"
            meaning = " ".join(meanings[found.name].split()).replace("|", "\\|")
            yield f"{prefix}{found.name}", found.metadata["resume"], shown, meaning


if __name__ == "__main__":
    sys.exit(exit_code_of(lambda: print(page(), end="")))


def refuse_changes(
    saved: dict[str, Any], config: TrainingConfig, checkpoint: Path | None = None
) -> list[tuple[str, Any, Any]]:
    """Allowed changes (name, saved, now) of settings with the rule `change`; UsageError for any other difference.

    `checkpoint` is what holds `saved`, where that is not the run directory's own.
    """
    now = to_plain(config)
    is_own = checkpoint is None or config.run_dir.resolve() in checkpoint.resolve().parents
    holder = f"{config.run_dir} holds" if is_own else f"{checkpoint} is of"
    other_place = ", or choose another --run_dir" if is_own else ""

    def told(changes: list[tuple[str, Any, Any]]) -> str:
        return ", ".join(f"{name} was {then!r} and is {today!r}" for name, then, today in changes)

    if exact := differences(saved, now, "exact"):
        raise UsageError(
            f"{holder} a run of another configuration: {told(exact)}. Continue it with the old value{other_place}"
        )
    changed = differences(saved, now, "change")
    if silent := [change for change in changed if change[0] not in config.allow_change]:
        names = ", ".join(name for name, _, _ in silent)
        raise UsageError(
            f"{holder} a run of another configuration: {told(silent)}. Continue it with the old value, "
            f"allow it with --allow_change '[{names}]'{other_place}"
        )
    return changed
