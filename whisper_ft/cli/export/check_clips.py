"""Clips of a check: utterances of a data set, as our own decoding and every engine get them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from whisper_ft.cli.export.engines.engine_job import JobClip
from whisper_ft.data.audio.containers import Waveform
from whisper_ft.data.audio.log_mel import LogMel
from whisper_ft.data.labels.tokens import LabelEncoder
from whisper_ft.data.types import Source
from whisper_ft.decoding.long_form import AudioWindow, audio_windows
from whisper_ft.models.whisper import LoadedWhisper

LETTERS_PER_WORD = 6  # for texts without spaces, whose words cannot be counted


@dataclass(frozen=True)
class CheckClip:
    """A window of an utterance, with the input of the engines."""

    window: AudioWindow
    job: JobClip


class _HeardLogMel(LogMel):
    """Log-mel that keeps the last waveform, because `audio_windows` yields features alone."""

    waveform: Waveform = np.zeros(0, dtype=np.float32)

    def __call__(self, waveform: Waveform) -> torch.Tensor:  # [samples] -> [M, t]
        self.waveform = waveform
        return super().__call__(waveform)


def read_clips(
    source: Source, loaded: LoadedWhisper, encode: LabelEncoder, utterances: int | None, words: int
) -> tuple[list[CheckClip], int]:
    """Read the windows of utterances from the beginning of a set. Also returns the number of words in the references.

    Utterances whose audio cannot be read are left out. With `utterances` None, reading ends after the utterance that
    completes the number of words.
    """
    log_mel = _HeardLogMel(loaded.processor.feature_extractor)
    clips: list[CheckClip] = []
    count = 0
    for window in audio_windows(source, log_mel, rank=0, world=1, max_utterances=utterances):
        if window.number == 0:
            if utterances is None and count >= words:
                break
            if window.seconds:
                count += words_of(window.row.text)
        if window.seconds:
            prompt, _ = encode.prompt_or_default(window.row.language, window.row.task)
            language, task = language_and_task(prompt, encode, loaded)
            features = window.features.numpy()
            clip = JobClip(features, log_mel.frames, log_mel.waveform, prompt, language, task)
            clips.append(CheckClip(window, clip))
    return clips, count


def words_of(text: object) -> int:
    """Return the number of words of a reference. A text without spaces counts one for LETTERS_PER_WORD characters."""
    return max(len(text.split()), len(text) // LETTERS_PER_WORD) if isinstance(text, str) else 0


def language_and_task(prompt: Sequence[int], encode: LabelEncoder, loaded: LoadedWhisper) -> tuple[str, str]:
    """Return language code and task in a prompt; those of an English-only model are `en` and `transcribe`."""
    if not encode.is_multilingual:
        return "en", "transcribe"
    tasks = {number: name for name, number in loaded.model.generation_config.task_to_id.items()}
    return encode.languages[prompt[1]], tasks[prompt[2]]
