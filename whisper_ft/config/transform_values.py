"""Values in the settings of transforms: ranges, probabilities, names and codecs, read and checked.

Each reader gets a plain value and the name of its setting, and raises ValueError with this name for a wrong value.
"""

import math
import re
from collections.abc import Callable, Iterable
from typing import Any, Literal, NamedTuple

Range = tuple[float, float]
"""Least and greatest value of a parameter. A value between them is drawn for each utterance in each epoch."""
CodecName = Literal["gsm", "ulaw", "alaw", "mp3", "opus", "vorbis"]
TELEPHONE_CODECS: tuple[CodecName, ...] = ("gsm", "ulaw", "alaw")
"""Codecs with a fixed bit rate: they work at 8,000 samples per second."""
KBPS: dict[CodecName, Range] = {"mp3": (16.0, 64.0), "opus": (8.0, 32.0), "vorbis": (32.0, 64.0)}
"""Default bit rates in kbit/s of the codecs that have a choice."""
KBPS_LIMITS: dict[CodecName, Range] = {"mp3": (8.0, 128.0), "opus": (6.0, 128.0), "vorbis": (32.0, 86.0)}
"""Lowest and highest bit rates in kbit/s: the encoder's own lowest, and one above which speech sounds unchanged."""


class Codec(NamedTuple):
    """Codec of a list, with the range of its bit rate in kbit/s; None if it has a fixed one."""

    name: CodecName
    kbps: Range | None


def range_reader(least: float, most: float) -> Callable[[Any, str], Range]:
    """Return the reader of a range within `least` and `most`: two rising numbers, or one that is always used."""

    def read(value: Any, setting: str) -> Range:
        numbers = value if isinstance(value, list | tuple) else [value, value]
        if len(numbers) != 2 or not all(map(_is_number, numbers)) or not least <= numbers[0] <= numbers[1] <= most:
            raise ValueError(
                f"--{setting} must be a number or two rising numbers, from {least:g} to {most:g}, got {value}"
            )
        return float(numbers[0]), float(numbers[1])

    return read


def read_probability(value: Any, setting: str) -> float:
    """Return a probability."""
    if not _is_number(value) or not 0 <= value <= 1:
        raise ValueError(f"--{setting} must be a number from 0 to 1, got {value}")
    return float(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def read_names(value: Any, setting: str) -> tuple[str, ...]:
    """Return one name or several, of which one is drawn."""
    names = value if isinstance(value, list | tuple) else [value]
    if not names or not all(isinstance(name, str) and name for name in names):
        raise ValueError(f"--{setting} must be a name, a path, or a list of them, got {value}")
    return tuple(names)


def read_codecs(value: Any, setting: str) -> tuple[Codec, ...]:
    """Return the codecs that texts such as `gsm`, `mp3` or `mp3@8-64` name."""
    return tuple(_codec(name, setting) for name in read_names(value, setting))


def _codec(text: str, setting: str) -> Codec:
    name, has_rate, rate = text.partition("@")
    known: dict[str, CodecName] = {codec: codec for codec in (*TELEPHONE_CODECS, *KBPS)}
    if name not in known:
        raise ValueError(f"--{setting} {text}: unknown codec; give {listed(known)}, or a bit rate too: mp3@8-64")
    codec = known[name]
    if not has_rate:
        return Codec(codec, KBPS.get(codec))
    if codec in TELEPHONE_CODECS:
        raise ValueError(f"--{setting} {text}: {name} has a fixed bit rate; give {name} alone")
    numbers = re.fullmatch(r"(\d+(?:\.\d+)?)(?:-(\d+(?:\.\d+)?))?", rate)
    low, high = (float(numbers[1]), float(numbers[2] or numbers[1])) if numbers else (0.0, 0.0)
    least, most = KBPS_LIMITS[codec]
    if not least <= low <= high <= most:
        raise ValueError(
            f"--{setting} {text}: expected a bit rate or two rising ones, from {least:g} to {most:g} kbit/s, as "
            f"{name}@{least:g}-64"
        )
    return Codec(codec, (low, high))


def listed(names: Iterable[str]) -> str:
    """Return names as words: `light, phone or room`."""
    *first, last = names
    return f"{', '.join(first)} or {last}"
