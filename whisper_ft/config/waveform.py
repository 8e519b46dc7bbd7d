"""Settings of waveform augmentation: a list of transforms, each with its ranges and its probability."""

import difflib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, NamedTuple

from whisper_ft.config.transform_values import (
    KBPS,
    Codec,
    Range,
    listed,
    range_reader,
    read_codecs,
    read_names,
    read_probability,
)

NOISES = ("white", "pink", "babble")
ROOM = "room"
WaveformSetting = list[Any] | str
"""Type of a setting that holds transforms: the name of a preset, or a list of mappings with one key each."""


def _range(low: float, high: float, least: float, most: float) -> Any:
    """Return the field of a range, whose values lie from `least` to `most`."""
    return field(default=(low, high), metadata={"read": range_reader(least, most)})


def _p() -> Any:
    """Return the field of the probability that a transform is applied."""
    return field(default=0.5, metadata={"read": read_probability})


def _names(default: str) -> Any:
    """Return the field of one name or several, of which one is drawn."""
    return field(default=(default,), metadata={"read": read_names})


@dataclass(frozen=True)
class GainConfig:
    """Louder or softer by some decibels."""

    db: Range = _range(-6.0, 6.0, -60.0, 60.0)
    p: float = _p()


@dataclass(frozen=True)
class SpeedConfig:
    """Faster or slower by resampling, which moves the pitch along."""

    factor: Range = _range(0.9, 1.1, 0.5, 2.0)
    p: float = _p()


@dataclass(frozen=True)
class TempoConfig:
    """Faster or slower at the same pitch."""

    factor: Range = _range(0.9, 1.1, 0.5, 2.0)
    p: float = _p()


@dataclass(frozen=True)
class PitchConfig:
    """Higher or lower by some semitones at the same tempo."""

    semitones: Range = _range(-2.0, 2.0, -12.0, 12.0)
    p: float = _p()


@dataclass(frozen=True)
class NoiseConfig:
    """Noise at a signal-to-noise ratio: white, pink, babble of other rows, or recordings."""

    of: tuple[str, ...] = _names("pink")
    snr_db: Range = _range(5.0, 25.0, -20.0, 80.0)
    p: float = _p()


@dataclass(frozen=True)
class ReverbConfig:
    """Reverberation of a simulated room, or of recorded impulse responses."""

    of: tuple[str, ...] = _names(ROOM)
    rt60: Range = _range(0.2, 0.6, 0.05, 3.0)
    p: float = _p()


@dataclass(frozen=True)
class CodecConfig:
    """Encoded and decoded by a lossy codec."""

    of: tuple[Codec, ...] = field(
        default=(Codec("gsm", None), Codec("ulaw", None), Codec("mp3", KBPS["mp3"])),
        metadata={"read": read_codecs},
    )
    p: float = _p()


@dataclass(frozen=True)
class BandConfig:
    """Only the frequencies between two limits in Hz, as over a telephone."""

    hz: Range = _range(300.0, 3400.0, 0.0, 8000.0)
    p: float = _p()


@dataclass(frozen=True)
class ClipConfig:
    """Cut off at some decibels below the peak, as by an overdriven microphone."""

    db: Range = _range(3.0, 12.0, 0.0, 60.0)
    p: float = _p()


@dataclass(frozen=True)
class PadConfig:
    """Silence before and after, in seconds."""

    before: Range = _range(0.0, 0.5, 0.0, 30.0)
    after: Range = _range(0.0, 0.5, 0.0, 30.0)
    p: float = _p()


TransformConfig = (
    GainConfig
    | SpeedConfig
    | TempoConfig
    | PitchConfig
    | NoiseConfig
    | ReverbConfig
    | CodecConfig
    | BandConfig
    | ClipConfig
    | PadConfig
)

TRANSFORMS: dict[str, type[TransformConfig]] = {
    "gain": GainConfig,
    "speed": SpeedConfig,
    "tempo": TempoConfig,
    "pitch": PitchConfig,
    "noise": NoiseConfig,
    "reverb": ReverbConfig,
    "codec": CodecConfig,
    "band": BandConfig,
    "clip": ClipConfig,
    "pad": PadConfig,
}
"""Class of each transform, by its name in a list."""
PRESET = "preset"
PRESETS: dict[str, list[dict[str, Any]]] = {
    "light": [
        {"speed": {"factor": [0.9, 1.1], "p": 0.4}},
        {"gain": {"db": [-6, 6], "p": 0.4}},
        {"noise": {"of": ["white", "pink"], "snr_db": [15, 30], "p": 0.3}},
    ],
    "phone": [
        {"noise": {"of": ["pink", "babble"], "snr_db": [10, 30], "p": 0.4}},
        {"band": {"hz": [300, 3400], "p": 0.3}},
        {"codec": {"of": ["gsm", "ulaw", "alaw", "mp3@8-24"], "p": 0.75}},
        {"gain": {"db": [-9, 3], "p": 0.4}},
    ],
    "room": [
        {"reverb": {"of": ROOM, "rt60": [0.2, 0.7], "p": 0.6}},
        {"noise": {"of": ["pink", "babble"], "snr_db": [8, 25], "p": 0.5}},
        {"gain": {"db": [-9, 3], "p": 0.4}},
    ],
}
"""Lists that stand for a name."""


class ListedTransform(NamedTuple):
    """Transform of a list such as `augment.waveform`, in which each preset is replaced by its own list."""

    name: str
    setting: str
    """Its place in the settings, for errors: `augment.waveform[2].noise`."""
    config: TransformConfig

    @property
    def folders(self) -> list[tuple[str, str]]:
        """Setting and path of each place of recordings that it needs."""
        if not isinstance(self.config, NoiseConfig | ReverbConfig):
            return []
        return [(f"{self.setting}.of", name) for name in self.config.of if name not in (*NOISES, ROOM)]


def transforms_in(value: WaveformSetting, setting: str) -> list[ListedTransform]:
    """Return the transforms of a setting, presets replaced by their lists.

    `value` is the name of a preset, or a list of mappings with one key each, and `setting` its name in errors. A value
    that is no mapping stands for the first parameter: `{noise: white}`. Raises ValueError for anything else.
    """
    if isinstance(value, str):
        return _preset(value, setting)
    return [one for number, item in enumerate(value) for one in _item(item, f"{setting}[{number}]")]


def words_for(value: WaveformSetting) -> str:
    """Return a setting in words: `phone: noise, band, codec, gain`. Paths of recordings are left out."""
    names = ", ".join(one.name for one in transforms_in(value, "augment"))
    return f"{value}: {names}" if isinstance(value, str) else names


def described(transforms: Sequence[ListedTransform]) -> list[dict[str, Any]]:
    """Return transforms as JSON values, with defaults written out."""
    return [{one.name: _as_json(asdict(one.config))} for one in transforms]


def _as_json(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _as_json(inner) for name, inner in value.items()}
    return [_as_json(inner) for inner in value] if isinstance(value, list | tuple) else value


def _preset(name: object, setting: str) -> list[ListedTransform]:
    if not isinstance(name, str) or name not in PRESETS:
        raise ValueError(
            f"--{setting} {name}: there is no such preset; give {listed(PRESETS)}, or a list of transforms"
        )
    return transforms_in(PRESETS[name], setting)


def _item(item: Any, setting: str) -> list[ListedTransform]:
    """Return the transforms of an item of a list: one, or those of a preset."""
    if not isinstance(item, dict) or len(item) != 1:
        raise ValueError(f"--{setting}: must be a mapping with one key, such as {{gain: {{db: [-6, 6]}}}}, got {item}")
    ((name, given),) = item.items()
    if name == PRESET:
        return _preset(given, f"{setting}.{PRESET}")
    if name not in TRANSFORMS:
        raise ValueError(f"--{setting}: unknown transform {name!r}{_meant(name, [*TRANSFORMS, PRESET])}")
    return [ListedTransform(name, f"{setting}.{name}", _transform(TRANSFORMS[name], given, f"{setting}.{name}"))]


def _transform(cls: type[TransformConfig], given: Any, setting: str) -> TransformConfig:
    """Build a transform from the mapping of its parameters, from its first parameter, or from nothing."""
    readers = {one.name: one.metadata["read"] for one in fields(cls)}
    parameters = given if isinstance(given, dict) else {} if given is None else {next(iter(readers)): given}
    for name in parameters:
        if name not in readers:
            raise ValueError(f"--{setting}: unknown parameter {name!r}{_meant(name, list(readers))}")
    transform = cls(**{name: readers[name](value, f"{setting}.{name}") for name, value in parameters.items()})
    if isinstance(transform, BandConfig) and transform.hz[0] == transform.hz[1]:
        raise ValueError(f"--{setting}.hz must be two rising frequencies, got {list(transform.hz)}")
    if isinstance(transform, ReverbConfig) and "rt60" in parameters and ROOM not in transform.of:
        raise ValueError(f"--{setting}.rt60: has no effect on recorded impulse responses; leave it out")
    return transform


def _meant(name: object, names: list[str]) -> str:
    near = difflib.get_close_matches(str(name), names, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; give {listed(names)}"
