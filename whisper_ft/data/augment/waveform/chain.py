"""Chain of waveform transforms: each is applied to an utterance, in order, with its probability."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from whisper_ft.config.waveform import ListedTransform, WaveformSetting, described, transforms_in
from whisper_ft.data.audio.containers import Waveform
from whisper_ft.data.audio.noise_files import NoiseFiles
from whisper_ft.data.augment.waveform.band import Band
from whisper_ft.data.augment.waveform.codec import LossyCodec
from whisper_ft.data.augment.waveform.level import Clipping, Gain
from whisper_ft.data.augment.waveform.noise import Noise
from whisper_ft.data.augment.waveform.pad import Pad
from whisper_ft.data.augment.waveform.reverb import Reverb
from whisper_ft.data.augment.waveform.tempo import Pitch, Speed, Tempo
from whisper_ft.data.augment.waveform.time_map import SAME_TIMES, TimeMap
from whisper_ft.data.augment.waveform.transform_draws import TransformDraws
from whisper_ft.data.augment.waveform.waveform_transform import Drawn, Surroundings, WaveformTransform

MAKERS: dict[str, Callable[[Any, Mapping[str, NoiseFiles]], WaveformTransform]] = {
    "gain": lambda settings, _: Gain(settings),
    "speed": lambda settings, _: Speed(settings),
    "tempo": lambda settings, _: Tempo(settings),
    "pitch": lambda settings, _: Pitch(settings),
    "noise": Noise,
    "reverb": Reverb,
    "codec": lambda settings, _: LossyCodec(settings),
    "band": lambda settings, _: Band(settings),
    "clip": lambda settings, _: Clipping(settings),
    "pad": lambda settings, _: Pad(settings),
}
"""Makers of the transforms, from their settings and the recordings of all paths."""


@dataclass(frozen=True)
class Augmented:
    """Utterance after a chain."""

    waveform: Waveform
    times: TimeMap = SAME_TIMES
    drawn: tuple[Drawn, ...] = ()
    """Transforms that were applied; without any, the waveform is the given one."""


@dataclass(frozen=True)
class _Link:
    """Transform of a chain, with its number among those of the same name, and its probability."""

    name: str
    number: int
    p: float
    transform: WaveformTransform


class WaveformChain:
    """Chain of transforms. Its result is a pure function of the utterance, its place, the seed and the settings.

    Parameters
        listed: transforms in their order; at least one.
        seed: seed of all draws.

    Raises UsageError for recordings that are missing or cannot be used.
    """

    def __init__(self, listed: list[ListedTransform], seed: int) -> None:
        self._listed, self._seed = listed, seed
        places = [place for one in listed for place in one.folders]
        self.recordings = {path: NoiseFiles.found(path, setting) for setting, path in places}
        """Recordings of noise and of impulse responses, by their path in the settings."""
        counts: Counter[str] = Counter()
        self._links = list[_Link]()
        for one in listed:
            transform = MAKERS[one.name](one.config, self.recordings)
            self._links.append(_Link(one.name, counts[one.name], one.config.p, transform))
            counts[one.name] += 1

    @classmethod
    def of(cls, value: WaveformSetting, seed: int, setting: str) -> Self | None:
        """Make the chain of a setting, whose name is `setting`; None if it names no transform."""
        listed = transforms_in(value, setting)
        return cls(listed, seed) if listed else None

    @property
    def words(self) -> str:
        """Names of the transforms: `noise, band, codec`."""
        return ", ".join(one.name for one in self._listed)

    @property
    def fingerprint(self) -> str:
        """Number and digest of the recordings of each path, in the order of the settings; "" without recordings."""
        return ", ".join(files.fingerprint for files in self.recordings.values())

    @property
    def content(self) -> str:
        """Digest of a sample of the bytes of the recordings of each path; "" without recordings."""
        return ", ".join(files.content for files in self.recordings.values())

    @property
    def rule(self) -> dict[str, Any]:
        """Transforms and recordings as JSON values: everything on which the result depends besides utterance and seed.

        Paths are left out, because recordings may be moved. So is `content`, which early versions did not record.
        """
        paths = [*self.recordings]
        transforms = described(self._listed)
        for parameters in (one for transform in transforms for one in transform.values()):
            names = parameters.get("of", [])
            parameters |= {"of": [paths.index(n) if n in paths else n for n in names]} if names else {}
        return {"transforms": transforms, "recordings": self.fingerprint}

    def __call__(self, waveform: Waveform, around: Surroundings) -> Augmented:
        """Augment an utterance. The given waveform [samples] is not changed.

        A transform whose result is beyond full scale is followed by a scaling to a peak of 1.
        """
        times, drawn = SAME_TIMES, list[Drawn]()
        for link in self._links:
            draws = TransformDraws(self._seed, around.place, link.name, link.number)
            if not draws.happens(link.p):
                continue
            result = link.transform(waveform, draws, around)
            waveform = _within_full_scale(result.waveform)
            times = times.then(replace(result.times, last=len(waveform) / around.rate))
            drawn.append(Drawn(link.name, result.drawn))
        return Augmented(waveform, times, tuple(drawn))


def _within_full_scale(waveform: Waveform) -> Waveform:
    peak = np.abs(waveform).max(initial=0.0)
    return waveform / np.float32(peak) if peak > 1.0 else waveform
