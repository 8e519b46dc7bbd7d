"""Layout of a block: the windows that its clips are packed into, and the begin of each clip in its window."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from whisper_ft.config.packing import PackConfig
from whisper_ft.data.labels.draws import LabelDraws
from whisper_ft.data.labels.tokens import LabelEncoder
from whisper_ft.data.labels.window_label import TIMES_PER_SECOND, PlacedText
from whisper_ft.data.packing.clip import Clip, step_of
from whisper_ft.data.packing.packer import Pack, pack
from whisper_ft.data.sampling.order import Place
from whisper_ft.runtime.rng import hash64

_GAP = 110  # part of a hash that tells the gaps from other draws about an utterance
PARTIAL_STEPS = TIMES_PER_SECOND  # 1 s, the most that a window holds of an utterance of which it has the beginning only
MIN_PARTIAL_STEPS = 15  # 0.3 s: in less of it there is not a word


class Placed(NamedTuple):
    """A clip in a window."""

    clip: Clip
    begin: int
    """First sample, a multiple of 0.02 s."""

    @property
    def end(self) -> int:
        """Sample after the last one."""
        return self.begin + len(self.clip.waveform)


@dataclass(frozen=True)
class Layout:
    """Clips of one window, in the order of the stream, of one language and task."""

    placed: tuple[Placed, ...]
    key: Place
    """Place of the longest clip, the key of random choices about the window."""
    timestamps: bool
    """True if the label has timestamps, unless these take too many tokens."""
    partial: Placed | None = None
    """Clip of which only the beginning is in the window, up to its last sample; it is trained in another one."""

    def texts(self, step: int) -> list[PlacedText]:
        """Return the texts with times in steps of `step` samples from the start of the window."""
        texts = [
            PlacedText(text.text, text.begin + begin // step, None if text.end is None else text.end + begin // step)
            for clip, begin in self.placed
            for text in clip.texts
        ]
        if self.partial is not None:
            texts.append(PlacedText("", self.partial.clip.texts[0].begin + self.partial.begin // step, None))
        return texts


class BlockLayout:
    """Function that lays out the clips of a block in windows. The result depends on clips, settings and seed only.

    Parameters
        window_samples: length of a window.
        rate: samples of a second.
    """

    def __init__(
        self, settings: PackConfig, draws: LabelDraws, encode: LabelEncoder, window_samples: int, rate: int
    ) -> None:
        self._settings, self._draws, self._encode = settings, draws, encode
        self._step = step_of(rate)
        self._steps = window_samples // self._step

    def __call__(self, clips: Sequence[Clip]) -> list[Layout]:
        """Return the windows of a block. Without packing each clip begins a window of its own."""
        if not self._settings.enabled:
            return [Layout((Placed(clip, 0),), clip.place, self._draws.timestamps(clip.place)) for clip in clips]
        alike: dict[object, list[Clip]] = {}
        for clip in clips:
            alone = clip.place if clip.texts[-1].end is None else None  # nothing follows speech that goes on
            one_kind = tuple(self._encode.prompt(clip.language, clip.task))
            alike.setdefault((one_kind, alone), []).append(clip)
        return [layout for group in alike.values() for layout in self._packed(group)]

    def _packed(self, clips: list[Clip]) -> list[Layout]:
        gaps = [self._gap(clip) for clip in clips]
        lengths = [gap + clip.steps(self._step) for gap, clip in zip(gaps, clips, strict=True)]
        rooms = [self._room(clip, length) for clip, length in zip(clips, lengths, strict=True)]
        packs = pack(lengths, [clip.cost for clip in clips], rooms, self._encode.capacity)
        return [self._layout(clips, gaps, one) for one in packs]

    def _gap(self, clip: Clip) -> int:
        """Draw the gap before a clip, in steps. It is shorter if the clip nearly fills a window."""
        low, high = self._settings.gap
        seconds = low + (high - low) * (hash64(self._draws.seed, *clip.place, _GAP) / 2**64)
        return min(round(seconds * TIMES_PER_SECOND), self._steps - clip.steps(self._step))

    def _room(self, clip: Clip, length: int) -> int:
        """Return the length of a window whose longest clip is this one, in steps."""
        room = self._steps - PARTIAL_STEPS
        return room if self._ends_partially(clip.place) and length <= room else self._steps

    def _ends_partially(self, key: Place) -> bool:
        return self._draws.timestamps(key) and self._draws.partial_last(key)

    def _layout(self, clips: list[Clip], gaps: list[int], one: Pack) -> Layout:
        placed, at = list[Placed](), 0
        for number in one.items:
            placed.append(Placed(clips[number], (at + gaps[number]) * self._step))
            at += gaps[number] + clips[number].steps(self._step)
        key = clips[one.longest].place
        partial = self._partial(clips, gaps, one.items, at) if self._ends_partially(key) else None
        return Layout(tuple(placed), key, self._draws.timestamps(key), partial)

    def _partial(self, clips: list[Clip], gaps: list[int], items: Sequence[int], used: int) -> Placed | None:
        """Return the clip that begins at the end of a window, if one fits: the next that is not in the window.

        It begins in the last second. Its first text begins before the end of the window, and ends after it.
        """
        if sum(clips[number].cost for number in items) >= self._encode.capacity:  # its start time takes a token
            return None
        following = [(items[-1] + shift) % len(clips) for shift in range(1, len(clips))]
        for number in following:
            clip, begin = clips[number], max(used + gaps[number], self._steps - PARTIAL_STEPS)
            room, first = self._steps - begin, clip.texts[0]
            is_cut = first.begin < room and (first.end is None or first.end > room)
            if number not in items and room >= MIN_PARTIAL_STEPS and clip.steps(self._step) > room and is_cut:
                return Placed(clip, begin * self._step)
        return None
