"""Clips of the demo corpus: each is one sentence, spoken in some voice and speed, as an encoded audio file."""

import io
import random
from dataclasses import dataclass

import numpy as np
import soundfile
import soxr

from whisper_ft.cli.demo.speech import synthesise

VOICES = ("m1", "m2", "m3", "m4", "m5", "m7", "f1", "f2", "f3", "f4", "Alex", "linda")  # espeak-ng's clearest voices
WORDS_PER_MINUTE = (145, 155, 165, 175)
PITCHES = (40, 45, 50, 55, 60)  # on a scale of 0 to 99; 50 is the natural pitch of a voice
MAX_SECONDS = 4.8  # the window of the micro model has 5 s
LOUDNESS = 0.8  # share of full scale, because resampling and MP3 overshoot and must not clip


@dataclass(frozen=True)
class DemoClip:
    """Sentence, voice and format of a clip: everything that its encoded bytes depend on."""

    name: str
    sentence: str
    language: str
    voice: str
    words_per_minute: int
    pitch: int

    @property
    def client_id(self) -> str:
        """Id of the speaker, in the column that Common Voice calls `client_id`."""
        return f"{self.language}-{self.voice}"


def plan(language: str, split: str, texts: list[str], seed: int) -> list[DemoClip]:
    """Plan a clip for each sentence of a split, with random voice, speed and pitch. Every third clip is an MP3.

    The same arguments give the same clips. A clip does not change if more sentences follow.
    """
    return [_clip(language, f"{language}_{split}_{index:06d}", text, index, seed) for index, text in enumerate(texts)]


def _clip(language: str, stem: str, text: str, index: int, seed: int) -> DemoClip:
    rng = random.Random(f"{stem} {seed}")  # a random stream per clip, so a clip does not change when the split grows
    voice, speed, pitch = (options[int(rng.random() * len(options))] for options in (VOICES, WORDS_PER_MINUTE, PITCHES))
    ending = "mp3" if index % 3 == 2 else "flac"  # encoding MP3 takes longer than all other work
    return DemoClip(f"{stem}.{ending}", text, language, str(voice), int(speed), int(pitch))


def encode(clip: DemoClip) -> bytes:
    """Synthesise a clip and return its encoded bytes: 16 kHz FLAC or 48 kHz MP3, as the ending of its name says.

    Raises AssertionError for a clip of MAX_SECONDS or longer, and the errors of `synthesise`.
    """
    samples, rate = synthesise(clip.sentence, clip.language, clip.voice, clip.words_per_minute, clip.pitch)
    seconds = len(samples) / rate
    assert seconds < MAX_SECONDS, f"{clip} takes {seconds:.1f} s: shorten the grammar's sentences or speak faster"
    kind, wanted_rate = ("FLAC", 16_000) if clip.name.endswith(".flac") else ("MP3", 48_000)
    # Resampled as floating point, because soxr dithers integers with noise seeded by the clock.
    wave = soxr.resample(samples.astype(np.float32) * (LOUDNESS / 32_768), rate, wanted_rate)
    encoded = io.BytesIO()
    soundfile.write(encoded, wave, wanted_rate, format=kind)
    return encoded.getvalue()
