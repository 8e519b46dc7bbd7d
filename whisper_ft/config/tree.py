"""Trees of dataclasses as plain values, and their fields by dotted name."""

from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

T = TypeVar("T")


def to_plain(config: Any) -> dict[str, Any]:
    """Nested dict of JSON values, as written to run_dir/config.yaml and into checkpoints."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(inner) for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return [plain(inner) for inner in value]
        return str(value) if isinstance(value, Path) else value

    return dict(plain(asdict(config)))


def leaves(cls: Any, prefix: str = "") -> list[tuple[str, Any]]:
    """Dotted name and dataclass field of every setting that is not a section."""
    hints = get_type_hints(cls)
    settings: list[tuple[str, Any]] = []
    for inner in fields(cls):
        if is_dataclass(hints[inner.name]):
            settings += leaves(hints[inner.name], f"{prefix}{inner.name}.")
        else:
            settings.append((f"{prefix}{inner.name}", inner))
    return settings


def flatten(plain: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dict to {dotted name: value}."""
    flat: dict[str, Any] = {}
    for key, value in plain.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def with_values(config: T, values: Mapping[str, Any]) -> T:
    """Copy of a configuration with other values, by dotted name."""
    own: dict[str, Any] = {name: value for name, value in values.items() if "." not in name}
    for section in {name.partition(".")[0] for name in values if "." in name}:
        inner = {name.partition(".")[2]: value for name, value in values.items() if name.startswith(f"{section}.")}
        own[section] = with_values(getattr(config, section), inner)
    return replace(config, **own)  # type: ignore[type-var]
