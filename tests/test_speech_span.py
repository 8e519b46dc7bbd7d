"""Span of speech: found by level to a few hundredths of a second, and the whole clip where the level says nothing."""

from typing import Any

import numpy as np
import pytest
import soxr
from hypothesis import given
from hypothesis import strategies as st

from whisper_ft.cli.demo.speech import synthesise
from whisper_ft.data.audio.speech_span import speech_span

RATE = 16_000
TOLERANCE = 0.08  # seconds


def amplitude(decibels: float) -> float:
    return float(10 ** (decibels / 20))


def noise(seconds: float, decibels: float, seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(0, amplitude(decibels), round(seconds * RATE)).astype(np.float32)


def sentence(language: str = "be", voice: str = "m1", text: str = "адзін два тры чатыры") -> Any:
    """Speech from its first to its last sample above a hundredth of its peak."""
    samples, rate = synthesise(text, language, voice)
    speech = soxr.resample(samples.astype(np.float32) / 2**15, rate, RATE)
    loud = (np.abs(speech) > 0.01 * np.abs(speech).max()).nonzero()[0]
    return speech[loud[0] : loud[-1] + 1] * (0.5 / np.abs(speech).max())


@pytest.mark.parametrize("background", [-300.0, -70.0, -50.0])
@pytest.mark.parametrize(("before", "after"), [(0.0, 0.0), (0.3, 0.5), (1.5, 0.0), (0.0, 2.0), (3.0, 3.0)])
@pytest.mark.parametrize(("language", "voice"), [("be", "m1"), ("sv", "f2"), ("en", "m3")])
def test_speech_between_silences_is_found(language: str, voice: str, before: float, after: float, background: float):
    speech = sentence(language, voice)
    clip = np.concatenate([np.zeros(round(before * RATE)), speech, np.zeros(round(after * RATE))])
    clip = (clip + noise(len(clip) / RATE, background)).astype(np.float32)
    begin, end = (at / RATE for at in speech_span(clip, RATE))
    assert begin == pytest.approx(before, abs=TOLERANCE)
    assert end == pytest.approx(before + len(speech) / RATE, abs=2 * TOLERANCE)  # the last sound fades


def test_a_click_is_no_speech():
    speech = sentence()
    clip = np.concatenate([noise(1.0, -60), speech, noise(1.0, -60, seed=1)]).astype(np.float32)
    clip[4000:4080] = 0.5  # 5 ms
    assert speech_span(clip, RATE)[0] / RATE == pytest.approx(1.0, abs=TOLERANCE)


@pytest.mark.parametrize(
    "clip", [noise(3.0, -20), noise(0.05, -20), np.zeros(RATE, np.float32), np.zeros(0, np.float32)], ids=len
)
def test_a_clip_in_which_speech_is_not_clear_is_taken_whole(clip: Any):
    assert speech_span(clip, RATE) == (0, len(clip))


@given(
    before=st.floats(0, 2),
    after=st.floats(0, 2),
    level=st.floats(-30, 0),
    rate=st.sampled_from([8_000, 16_000, 44_100]),
)
def test_the_span_lies_in_the_clip_and_does_not_depend_on_its_level(
    before: float, after: float, level: float, rate: int
):
    tone = np.sin(np.arange(rate) / rate * 2 * np.pi * 200)
    clip = np.concatenate([np.zeros(int(before * rate)), tone, np.zeros(int(after * rate))]).astype(np.float32)
    begin, end = speech_span(clip, rate)
    assert 0 <= begin < end <= len(clip)
    assert speech_span((clip * amplitude(level)).astype(np.float32), rate) == (begin, end)
