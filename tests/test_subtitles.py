"""Subtitles and the other formats of a transcript: every word once, in lines that fit, at times that never overlap."""

import json
import re
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whisper_ft.reports.subtitles import LINE_WIDTH, LINES, TimedText, cues_of, width_of
from whisper_ft.reports.transcript_formats import FORMATS, Segment, SpokenWord, Transcript, written

LETTERS = "ab,. 日本あー。「」（）ёжก็เดีé\u0301👩\u200d👧<&>-\u00a0؟क्षि"


def unspaced(text: str) -> str:
    return "".join(text.split())


@st.composite
def recordings(draw: st.DrawFn) -> tuple[list[tuple[TimedText, list[TimedText]]], float]:
    """Phrases in their order with times that a model may write, some of them with words, and the recording's length."""
    at, phrases = 0.0, []
    for _ in range(draw(st.integers(0, 5))):
        start = at + draw(st.floats(0, 3))
        end = start + draw(st.sampled_from([0.0, 0.02, 1.0, 28.0]))
        text = draw(st.text(LETTERS, min_size=0, max_size=250))
        words = []
        if draw(st.booleans()) and text.split():
            share = (end - start) / len(text.split())
            words = [TimedText(start + n * share, start + (n + 1) * share, f" {w}") for n, w in enumerate(text.split())]
        phrases.append((TimedText(start, end, text), words))
        at = end
    return phrases, draw(st.sampled_from([at, at + 1.0]))


@given(recordings())
def test_cues_hold_every_word_once_and_fit_the_screen(recording: tuple[list[tuple[TimedText, list[TimedText]]], float]):
    phrases, seconds = recording
    cues = cues_of(phrases, seconds)
    assert unspaced("".join(line for cue in cues for line in cue.lines)) == unspaced(
        "".join(phrase.text for phrase, _ in phrases)
    )
    for cue in cues:
        assert 1 <= len(cue.lines) <= LINES
        assert all(0 < width_of(line) <= LINE_WIDTH for line in cue.lines)
        assert all(line == line.strip() for line in cue.lines)


@given(recordings())
def test_cues_never_overlap_and_stay_within_the_recording(
    recording: tuple[list[tuple[TimedText, list[TimedText]]], float],
):
    phrases, seconds = recording
    cues = cues_of(phrases, seconds)
    for before, after in pairwise(cues):
        assert before.end <= after.start
    assert all(0 <= cue.start <= cue.end <= round(1000 * seconds) for cue in cues)
    if 1000 * seconds > len(cues):
        assert all(cue.start < cue.end for cue in cues)


def lines_of(text: str, seconds: float = 20.0) -> list[tuple[str, ...]]:
    return [cue.lines for cue in cues_of([(TimedText(0.0, seconds, text), [])], seconds)]


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("", []),
        ("Yes.", [("Yes.",)]),
        (
            "It was late when we came home. Nobody had waited for us, and the lamp in the hall had been put out.",
            [
                ("It was late when we came home.",),
                ("Nobody had waited for us,", "and the lamp in the hall had been put out."),
            ],
        ),
        (
            "one two three four five six seven eight nine ten eleven twelve "
            "thirteen fourteen fifteen sixteen seventeen",
            [
                ("one two three four five six", "seven eight nine ten eleven"),
                ("twelve thirteen fourteen", "fifteen sixteen seventeen"),
            ],
        ),
        ("https://example.org/" + 60 * "x", [("https://example.org/" + 22 * "x", 38 * "x")]),
        (
            "日本語の字幕は空白がないので句読点で分けます。次の文です。",
            [("日本語の字幕は空白がないので", "句読点で分けます。次の文です。")],
        ),
    ],
)
def test_a_text_is_cut_at_its_phrases(text: str, lines: list[tuple[str, ...]]):
    assert lines_of(text) == lines


def test_a_line_never_begins_with_closing_punctuation_nor_with_a_mark():
    text = 20 * "これは長い文章です、「はい」。" + 20 * "ก็ได้เดี๋ยว"
    for cue in lines_of(text, 60.0):
        for line in cue:
            assert line[0] not in "、。」็้๋"


def test_without_words_a_phrase_shares_its_time_out_by_length_and_with_words_by_them():
    text = "This sentence takes the first half of it. This sentence takes the other half of it."
    by_length = cues_of([(TimedText(10.0, 30.0, f"{text} {text}"), [])], 40.0)
    assert [(cue.start, cue.end) for cue in by_length] == [(10_000, 20_000), (20_000, 30_000)]
    words = [TimedText(10 + 0.1 * n, 10.1 + 0.1 * n, f" {word}") for n, word in enumerate(f"{text} {text}".split())]
    assert [cue.start for cue in cues_of([(TimedText(10.0, 30.0, f"{text} {text}"), words)], 40.0)] == [10_000, 11_600]


def test_a_pause_between_words_begins_a_new_cue():
    words = [TimedText(0.0, 0.5, " Wait."), TimedText(6.0, 6.5, " Go.")]
    cues = cues_of([(TimedText(0.0, 10.0, "Wait. Go."), words)], 10.0)
    assert [cue[:3] for cue in cues] == [(0, 1000, ("Wait.",)), (6000, 7000, ("Go.",))]


def test_each_cue_names_its_phrase_and_has_the_text_of_it():
    texts = ["Wait for me. " + 30 * "word ", "日本語の字幕は空白がないので句読点で分けます。" * 3, " ", "the end"]
    cues = cues_of([(TimedText(10.0 * n, 10.0 * n + 10, text), []) for n, text in enumerate(texts)], 40.0)
    for number, text in enumerate(texts):
        parts = [cue.text for cue in cues if cue.phrase == number]
        assert (" " if number == 0 else "").join(parts) == text.strip()
        assert all(unspaced("".join(cue.lines)) == unspaced(cue.text) for cue in cues)


def transcript(text: str, segments: Sequence[tuple[float, float, str]], **more: object) -> Transcript:
    parts = [Segment(start, end, part, -0.25, 0.01, 1.1, 0.0) for start, end, part in segments]
    return Transcript("a.wav", 5.5, "runs/x/best", "en", text, parts, **more)  # type: ignore[arg-type]


TRICKY = transcript("a --> b & <i>c</i> x\ty", [(0.0, 2.5, "a --> b & <i>c</i>"), (2.5, 5.5, "x\ty")])


@pytest.mark.parametrize(
    ("form", "text"),
    [
        ("txt", "a --> b & <i>c</i> x\ty\n"),
        ("srt", "1\n00:00:00,000 --> 00:00:02,500\na -> b & <i>c</i>\n\n2\n00:00:02,500 --> 00:00:05,500\nx y\n\n"),
        (
            "vtt",
            "WEBVTT\n\n00:00:00.000 --> 00:00:02.500\na --&gt; b &amp; &lt;i&gt;c&lt;/i&gt;\n\n"
            "00:00:02.500 --> 00:00:05.500\nx y\n",
        ),
        ("tsv", "start\tend\ttext\n0\t2500\ta --> b & <i>c</i>\n2500\t5500\tx y\n"),
    ],
)
def test_a_format_is_what_its_readers_expect(form: str, text: str):
    assert "".join(written(TRICKY, form)) == text


@pytest.mark.parametrize(
    ("form", "text"), [("txt", "\n"), ("srt", ""), ("vtt", "WEBVTT\n"), ("tsv", "start\tend\ttext\n")]
)
def test_a_recording_without_speech_has_empty_files(form: str, text: str):
    assert "".join(written(transcript("", []), form)) == text


def test_hours_are_written_in_the_clock():
    late = transcript("so", [(36_000.0, 36_001.25, "so")])
    late = Transcript(late.file, 36_002.0, late.model, late.language, late.text, late.segments)
    assert "10:00:00,000 --> 10:00:01,250" in "".join(written(late, "srt"))


def test_json_has_everything_under_the_names_of_openai():
    words = (SpokenWord(" so", 0.1, 0.4, 0.9), SpokenWord(" it", 0.4, 0.7, 0.8))
    segment = Segment(0.0, 2.0, "so it", -0.5, None, 0.9, 0.2, words)
    value = json.loads("".join(written(Transcript("b.mp3", 2.0, "m", "de", "so it", [segment], "truncated"), "json")))
    assert value["segments"][0].pop("words") == [
        {"word": " so", "start": 0.1, "end": 0.4, "probability": 0.9},
        {"word": " it", "start": 0.4, "end": 0.7, "probability": 0.8},
    ]
    assert value == {
        "file": "b.mp3",
        "duration": 2.0,
        "language": "de",
        "model": "m",
        "text": "so it",
        "segments": [
            {
                "id": 0,
                "start": 0.0,
                "end": 2.0,
                "text": "so it",
                "avg_logprob": -0.5,
                "no_speech_prob": None,
                "compression_ratio": 0.9,
                "temperature": 0.2,
            }
        ],
        "problem": "truncated",
    }


@pytest.mark.parametrize("form", FORMATS)
def test_a_name_or_text_that_is_not_unicode_can_be_written(form: str):
    odd = Transcript("\udcff.wav", 1.0, "m", None, "a\ud83d", [Segment(0.0, 1.0, "a\ud83d", None, None, 1.0, 0.0)])
    assert "".join(written(odd, form)).encode()


@given(st.lists(st.text(LETTERS, min_size=1, max_size=120), min_size=1, max_size=4))
def test_a_subtitle_file_is_parsed_back_to_its_words(texts: list[str]):
    segments = [(float(n), n + 1.0, text) for n, text in enumerate(texts)]
    value = Transcript(
        "a", float(len(texts)), "m", None, "", [Segment(s, e, t, 0.0, 0.0, 1.0, 0.0) for s, e, t in segments]
    )
    blocks = "".join(written(value, "srt")).split("\n\n")[:-1]
    assert [block.split("\n")[0] for block in blocks] == [str(n + 1) for n in range(len(blocks))]
    assert all(re.fullmatch(r"[\d:,]+ --> [\d:,]+", block.split("\n")[1]) for block in blocks)
    shown = unspaced("".join("".join(block.split("\n")[2:]) for block in blocks))
    assert shown.replace("-", "") == unspaced("".join(texts)).replace("-", "")
    assert "-->" not in shown
