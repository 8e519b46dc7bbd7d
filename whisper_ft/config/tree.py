"""Conversions of nested configurations: to plain JSON values, and to and from dotted names such as `optim.lr`."""

from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from whisper_ft.runtime.redaction import redacted

T = TypeVar("T")


def to_plain(config: Any) -> dict[str, Any]:
    """Convert a configuration to a nested dict of JSON values, as run_dir/config.yaml and checkpoints contain it.

    Credentials in addresses are hidden, because these files are shared.
    """

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(inner) for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return [plain(inner) for inner in value]
        return redacted(str(value)) if isinstance(value, str | Path) else value

    return dict(plain(asdict(config)))


def leaves(cls: Any, prefix: str = "") -> tuple[tuple[str, Any], ...]:
    """Return dotted name and dataclass field of every setting of a configuration class, in order of definition.

    Sections themselves are not listed. `prefix` begins every name. The result is kept, because it takes a while and is
    asked for often.
    """
    return _leaves(cls, prefix)


@cache
def _leaves(cls: Any, prefix: str) -> tuple[tuple[str, Any], ...]:
    hints = get_type_hints(cls)
    settings: list[tuple[str, Any]] = []
    for inner in fields(cls):
        if is_dataclass(hints[inner.name]):
            settings += leaves(hints[inner.name], f"{prefix}{inner.name}.")
        else:
            settings.append((f"{prefix}{inner.name}", inner))
    return tuple(settings)


def flatten(plain: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Convert a nested dict to a flat one, from dotted name to value. `prefix` begins every name.

    Lists are values and stay as they are; an empty dict leaves nothing.
    """
    flat: dict[str, Any] = {}
    for key, value in plain.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def with_values(config: T, values: Mapping[str, Any]) -> T:
    """Return a copy of a configuration with some values replaced, which are given by dotted name.

    The section N of a list is named by its number: `data.sources.0.task`. Raises ValueError if the configuration
    refuses the new values.
    """
    own: dict[str, Any] = {name: value for name, value in values.items() if "." not in name}
    for section in {name.partition(".")[0] for name in values if "." in name}:
        inner = {name.partition(".")[2]: value for name, value in values.items() if name.startswith(f"{section}.")}
        part = config[int(section)] if isinstance(config, list) else getattr(config, section)
        own[section] = with_values(part, inner)
    if isinstance(config, list):
        return [own.get(str(number), part) for number, part in enumerate(config)]  # type: ignore[return-value]
    return replace(config, **own)  # type: ignore[type-var]
