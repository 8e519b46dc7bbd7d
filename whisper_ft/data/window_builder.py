"""Builder of windows: rows become clips, the clips of a block are laid out, and each window gets audio and label."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from whisper_ft.config.packing import PackConfig
from whisper_ft.config.training import LabelsConfig
from whisper_ft.data.audio.containers import Waveform
from whisper_ft.data.audio.decode import decode
from whisper_ft.data.audio.log_mel import LogMel
from whisper_ft.data.audio.noise_files import NoiseFiles
from whisper_ft.data.audio.room_tone import quietest, repeated, softest
from whisper_ft.data.augment.transforms import Transforms
from whisper_ft.data.augment.waveform.chain import Augmented
from whisper_ft.data.augment.waveform.waveform_transform import Surroundings
from whisper_ft.data.labels.draws import LabelDraws
from whisper_ft.data.labels.previous_text import prompt_of, spelt_as_labels
from whisper_ft.data.labels.tokens import LabelEncoder
from whisper_ft.data.labels.usable_transcript import UsableTranscript
from whisper_ft.data.packing.clip import Clip, step_of
from whisper_ft.data.packing.layout import BlockLayout, Layout
from whisper_ft.data.sampling.order import Place
from whisper_ft.data.types import RejectedError, Row, Window

_NOISE = 120  # part of a hash that tells the choice of a noise from other draws about an utterance


@dataclass(frozen=True)
class WindowSettings:
    """Settings of a run by which its utterances become windows."""

    seed: int = 0
    pack: PackConfig = field(default_factory=PackConfig)
    labels: LabelsConfig = field(default_factory=LabelsConfig)
    noise: NoiseFiles | None = None
    """Recordings for windows without speech; None for the quietest part of utterances."""

    @property
    def draws(self) -> LabelDraws:
        """Random choices about windows."""
        return LabelDraws(self.seed, self.labels, self.pack.partial_share(self.labels.timestamps_share))


class WindowBuilder:
    """Builder of windows. Its results depend on the rows of a block, their places and the settings only."""

    def __init__(self, log_mel: LogMel, encode: LabelEncoder, transforms: Transforms, settings: WindowSettings) -> None:
        self.packs = settings.pack.enabled
        self._log_mel, self._encode, self._transforms, self._settings = log_mel, encode, transforms, settings
        self.draws = settings.draws
        self._rate = log_mel.sample_rate
        self._needs_quiet = settings.labels.no_speech_share > 0 and settings.noise is None
        self.layouts = BlockLayout(settings.pack, self.draws, encode, log_mel.window_samples, self._rate)

    def clip(self, rows: Sequence[Row], place: Place) -> Clip:
        """Decode and augment an utterance, given the rows of its chunk. Raises RejectedError if it cannot be used."""
        row = rows[place.row]
        if row.problem:
            raise RejectedError(*row.problem)
        transcript = UsableTranscript.of(row, self._encode)
        waveform = decode(row.audio, self._rate, self._log_mel.window_seconds, row.offset, row.duration)
        waveform = waveform[: self._log_mel.window_samples]
        if not waveform.any():
            raise RejectedError("silent", "every sample is zero, but there is a transcript")
        is_timed = self._settings.labels.timestamps_share > 0
        augmented = self._augmented(waveform, rows, place)
        texts = transcript.spoken(waveform, self._rate, 0, timestamps=is_timed, times=augmented.times)
        cost = transcript.cost(self._encode) if self.packs else 0
        previous = spelt_as_labels(rows, place.row, self._encode) if self._settings.labels.prompt_share > 0 else ()
        clip = Clip(row.id, place, augmented.waveform, texts, cost, row.language, row.task, previous, augmented.drawn)
        return replace(clip, quiet=quietest(waveform, self._rate).copy()) if self._needs_quiet else clip

    def _augmented(self, waveform: Waveform, rows: Sequence[Row], place: Place) -> Augmented:
        """Apply the transforms of waveforms to an utterance, given the rows of its chunk."""
        chain = self._transforms.waveform
        if chain is None:
            return Augmented(waveform)
        return chain(waveform, Surroundings(place, rows, self._rate, self._log_mel.window_samples))

    def windows(self, clips: Sequence[Clip]) -> Iterator[Window]:
        """Yield the windows of a block with at least one clip, and after some of them one without speech."""
        for layout in self.layouts(clips):
            yield self.window(layout)
            if self.draws.no_speech(layout.key):
                audio, label = self.silence(clips, layout.key), self._encode.no_speech()
                features = self._log_mel(audio)
                yield Window(features, label.tokens, (), filled_samples=len(audio), first_target=label.first_target)

    def window(self, layout: Layout) -> Window:
        """Return the window of a layout: log-mel of the whole, then transforms for each utterance, and the label."""
        features = self._log_mel(self.audio(layout))
        frames_per_second = self._log_mel.frames / self._log_mel.window_seconds
        for clip, begin in layout.placed if self._transforms.features else ():
            seconds = len(clip.waveform) / self._rate
            first = round(begin / self._rate * frames_per_second)
            part = features[:, first : first + round(seconds * frames_per_second)]
            for transform in self._transforms.features:
                part[:] = transform(part, seconds, clip.place)
        first_clip = layout.placed[0].clip
        label = self._encode.window(
            layout.texts(step_of(self._rate)),
            first_clip.language,
            first_clip.task,
            timestamps=layout.timestamps,
            prompt=self._prompt(layout),
        )
        return Window(
            features,
            label.tokens,
            tuple(clip.id for clip, _ in layout.placed),
            audio_samples=sum(len(clip.waveform) for clip, _ in layout.placed),
            filled_samples=layout.placed[-1].end,
            first_target=label.first_target,
        )

    def _prompt(self, layout: Layout) -> list[int]:
        """Return the previous text of a window. Packed windows have none that holds a text of one of their rows."""
        if not self.draws.prompt(layout.key):
            return []
        texts = {text.text for clip, _ in layout.placed for text in clip.texts if text.text} if self.packs else ()
        return prompt_of(layout.placed[0].clip.previous, self._encode, texts)

    def audio(self, layout: Layout) -> Waveform:  # -> [samples], up to the end of the last clip
        """Return the waveform of a layout: clips at their begins, and gaps between them."""
        placed = layout.placed if layout.partial is None else (*layout.placed, layout.partial)
        end = min(placed[-1].end, self._log_mel.window_samples)
        audio, free = np.zeros(end, np.float32), 0
        for clip, begin in placed:
            if begin > free and self._settings.pack.gap_sound == "room":
                audio[free:begin] = repeated(quietest(clip.waveform, self._rate), begin - free)
            free = begin + len(clip.waveform)
            audio[begin:free] = clip.waveform[: end - begin]
        return audio

    def silence(self, clips: Sequence[Clip], key: Place) -> Waveform:  # -> [samples]
        """Return the sound of the window without speech after that of a key: noise, or the quietest part of a block."""
        log_mel, noise = self._log_mel, self._settings.noise
        if noise is None:
            return repeated(softest([clip.quiet for clip in clips]), log_mel.window_samples)
        return noise.part(self._rate, log_mel.window_seconds, self._settings.seed, *key, _NOISE)
