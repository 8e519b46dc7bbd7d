"""Interface of a transform of waveforms: the utterance that it gets, and the sound and the times that it returns."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from whisper_ft.data.audio.containers import Waveform
from whisper_ft.data.augment.waveform.time_map import SAME_TIMES, TimeMap
from whisper_ft.data.augment.waveform.transform_draws import TransformDraws
from whisper_ft.data.sampling.order import Place
from whisper_ft.data.types import Row

Parameters = dict[str, float | str]
"""Values that a transform drew, by parameter."""


@dataclass(frozen=True)
class Surroundings:
    """Facts about an utterance that a transform may need besides its sound."""

    place: Place
    rows: Sequence[Row]
    """Rows of its chunk, for sounds of other utterances."""
    rate: int
    """Samples per second."""
    most: int | None
    """Most samples that the result may have; None without a limit. The waveform itself has at most as many."""


@dataclass(frozen=True)
class Transformed:
    """Result of one transform."""

    waveform: Waveform
    drawn: Parameters = field(default_factory=dict)
    times: TimeMap = SAME_TIMES


class WaveformTransform(Protocol):
    """Random transform of a waveform [samples]. It depends on its arguments and on nothing else."""

    def __call__(self, waveform: Waveform, draws: TransformDraws, around: Surroundings) -> Transformed:
        """Return a new waveform, or the given one unchanged. The given one is never written to."""


class Drawn(NamedTuple):
    """A transform that was applied, with the values that it drew."""

    name: str
    parameters: Parameters

    @property
    def record(self) -> dict[str, Parameters]:
        """Name and values for JSON, rounded: `{"gain": {"db": -3.2}}`."""
        rounded = {
            name: value if isinstance(value, str) else round(value, 4) for name, value in self.parameters.items()
        }
        return {self.name: rounded}


def words_of(drawn: Sequence[Drawn]) -> str:
    """Return transforms in words: `speed (factor 1.05), noise (of pink, snr_db 12.3)`."""
    return ", ".join(
        f"{one.name} ({', '.join(f'{name} {value}' for name, value in one.record[one.name].items())})" for one in drawn
    )
