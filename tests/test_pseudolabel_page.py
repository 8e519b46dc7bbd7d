"""The page of pseudolabel: the speech that each threshold keeps, in numbers, with windows to listen to."""

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from normalizers import get_normalizer
from whisper_ft.cli.pseudolabel.keep_curve import EDGES, SAMPLES, keep_curve
from whisper_ft.cli.pseudolabel.label_page import TITLES, LabelPage, _mp3, errors_of
from whisper_ft.cli.pseudolabel.pool_window import PoolWindow
from whisper_ft.cli.pseudolabel.rejection import LIMITS, rejection
from whisper_ft.config.pseudolabel import KeepLimits
from whisper_ft.scoring.edit_distance import ErrorCount

HTML = "{http://www.w3.org/1999/xhtml}"
LIMIT = {limit.setting: limit for limit in LIMITS}
NORMALIZE = get_normalizer("golden", language="be")


def window(number: int, **values: Any) -> PoolWindow:
    given: dict[str, Any] = {
        "text": "адзін два тры",
        "language": "be",
        "avg_logprob": -0.05 - 0.1 * number,
        "no_speech_prob": 0.02,
        "compression_ratio": 0.9,
        "reference": "адзін два тры" if number < 5 else "адзін два сем",
    }
    place: dict[str, Any] = {"part": 0, "item": number, "number": 0, "id": f"w{number}", "source": f"w{number}"}
    return PoolWindow(begin=0.0, seconds=2.0, is_whole=True, **place | given | values)


WINDOWS = [window(number) for number in range(12)]
ERRORS = {one.id: errors_of(one, NORMALIZE) for one in WINDOWS}


def test_each_threshold_keeps_the_windows_beyond_it_and_their_error_rate():
    curve = keep_curve(LIMIT["min_logprob"], WINDOWS, KeepLimits(min_logprob=-0.77), ERRORS)
    assert curve is not None
    kept = {point.threshold: (point.windows, point.seconds, point.errors.rate) for point in curve.points}
    assert set(kept) == {*EDGES["min_logprob"], -0.77}
    assert [point.threshold for point in curve.points if point.is_current] == [-0.77]
    assert kept[-0.5] == (5, 10.0, 0.0)
    assert kept[-0.77] == (8, 16.0, pytest.approx(3 / 24))
    assert kept[-2.0] == (12, 24.0, pytest.approx(7 / 36))
    for point in curve.points:
        limits = KeepLimits(min_logprob=point.threshold)
        assert point.windows == sum(rejection(one, limits) is None for one in WINDOWS)
    assert sum(one.windows for one in curve.ranges) == len(WINDOWS)
    assert all(one.low <= sample.avg_logprob < one.high for one in curve.ranges for sample in one.samples)  # type: ignore[operator]
    assert max(len(one.samples) for one in curve.ranges) == SAMPLES


def test_other_limits_stay_and_a_figure_that_is_not_there_has_no_curve():
    windows = [*WINDOWS, window(1, compression_ratio=9.0), window(2, text="")]
    curve = keep_curve(LIMIT["min_logprob"], windows, KeepLimits(), ERRORS)
    assert curve is not None
    assert curve.windows == len(WINDOWS)
    assert keep_curve(LIMIT["max_disagreement"], windows, KeepLimits(), ERRORS) is None
    assert keep_curve(LIMIT["min_logprob"], [], KeepLimits(), {}) is None


@pytest.fixture
def page(tmp_path: Path) -> ElementTree.Element:
    """A page of windows, of which some are rejected, with markup in a text and sounds of all but one."""
    windows = [
        *WINDOWS,
        window(12, text="<b>xyz</b>\u202e", id="w<12>", avg_logprob=-0.02),
        window(13, text="x", problem="decode_error"),
    ]
    windows += [window(14, avg_logprob=-0.01)]
    reasons = {"w11": "unlikely", "w13": "decode_error", "w14": "held_out_audio"}
    page = LabelPage(windows, reasons, KeepLimits(), NORMALIZE)
    chosen = [one.id for one in page.samples()]
    assert "w14" not in chosen
    sound = _mp3(np.zeros(16_000, np.float32), 16_000)
    path = page.write(tmp_path, "Labels of <x>", dict.fromkeys(chosen[1:], sound))
    return ElementTree.fromstring(
        path.read_text(encoding="utf-8")
        .replace("<!DOCTYPE html>", "")
        .replace("<html ", f'<html xmlns="{HTML[1:-1]}" ')
    )


def test_the_page_counts_kept_and_rejected_windows(page: ElementTree.Element):
    tiles = {
        "".join(one[0].itertext()): "".join(one[1].itertext())
        for one in page.iter(f"{HTML}div")
        if one.find(f"{HTML}dt") is not None
    }
    assert (tiles["windows"], tiles["kept"], tiles["kept audio"]) == ("15", "12", "24.0 s")
    assert {"WER of the kept", "WER of all"} <= tiles.keys()
    text = " ".join(page.itertext())
    for fact in ("unlikely", "decode_error", "held_out_audio", "--min_logprob", "<b>xyz</b>\\u202e", "Labels of <x>"):
        assert fact in text


def test_the_page_plays_samples_and_loads_nothing(page: ElementTree.Element):
    sounds = [one.get("src", "") for one in page.iter(f"{HTML}audio")]
    assert len(sounds) > 5
    assert all(sound.startswith("data:audio/mpeg;base64,") for sound in sounds)
    assert all(one.get("aria-label") for one in page.iter(f"{HTML}audio"))
    links = [value for one in page.iter() for name, value in one.items() if name in ("src", "href")]
    assert all(link.startswith("data:") for link in links)
    titles = [one.get("id") for one in page.iter(f"{HTML}section") if one.get("id")]
    assert titles == [setting for setting in TITLES if setting != "max_disagreement"]


def test_errors_are_counted_in_characters_where_there_are_no_words():
    japanese = get_normalizer("golden", language="ja")
    one = window(0, text="今日は雨", reference="今日は雪")
    assert errors_of(one, japanese) == ErrorCount(hits=3, substitutions=1)
    assert errors_of(window(7), NORMALIZE) == ErrorCount(hits=2, substitutions=1)
