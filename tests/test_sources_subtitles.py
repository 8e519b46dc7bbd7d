"""Recordings with subtitles beside them: each timed text is a row, heard where it is said."""

from pathlib import Path

import numpy as np
import pytest

from tests.test_cues import LONG
from tests.test_sources_folders import encoded, listen, noise, reasons, refused, rows_of, write
from whisper_ft.config.data import SourceConfig
from whisper_ft.data.formats.subtitle_files import open_subtitles
from whisper_ft.data.sources import open_source
from whisper_ft.data.types import UnhonouredError
from whisper_ft.runtime.errors import UsageError

SRT = """1
00:00:00,500 --> 00:00:02,000
Добры дзень!

2
00:00:02,100 --> 00:00:03,000


3
00:00:03,000 --> 00:00:04,500
Як справы?
"""


@pytest.fixture
def talks(tmp_path: Path) -> Path:
    """Three recordings with subtitles of three kinds."""
    write(tmp_path / "one.wav", encoded(5, seed=1))
    write(tmp_path / "one.srt", SRT)
    write(tmp_path / "deep" / "two.mp3", encoded(5, seed=2, kind="WAV"))
    write(tmp_path / "deep" / "two.be.vtt", "WEBVTT\n\n00:01.000 --> 00:02.500\n<v Ala>Так\n")
    write(tmp_path / "three.flac", encoded(5, seed=3, kind="FLAC"))
    write(tmp_path / "three.TextGrid", LONG.encode("utf-16"))
    return tmp_path


def test_each_timed_text_is_a_row_that_is_heard_where_it_is_said(talks: Path):
    rows = rows_of(open_subtitles, talks)
    assert [(row.id, row.text, row.speaker) for row in rows] == [
        ("deep/two.mp3@1", "Так", "Ala"),
        ("one.wav@0.5", "Добры дзень!", None),
        ("one.wav@3", "Як справы?", None),
        ("three.flac@1.5", 'Добры "дзень"!', None),
        ("three.flac@3.25", "Як справы?", None),
    ]
    assert reasons(rows) == [None] * 5
    assert {row.recording for row in rows} == {"deep/two.mp3", "one.wav", "three.flac"}
    expected = noise(5, seed=1)[8_000:32_000]
    assert np.abs(listen(rows[1]) - expected).max() < 1e-4


def test_the_format_is_detected_and_pairs_stay_pairs(talks: Path):
    assert open_source(SourceConfig(path=str(talks))).read(0)[0].text == "Так"
    write(talks / "one.txt", "Добры дзень! Як справы?")
    pairs = open_source(SourceConfig(path=str(talks)))
    assert {row.id for row in pairs.read(0)} == {"one.wav", "deep/two.mp3", "three.flac"}
    assert any("one.srt" in note and "--data.format subtitles" in note for note in pairs.notes)
    assert open_source(SourceConfig(path=str(talks), format="subtitles")).read(0)[1].id == "one.wav@0.5"


@pytest.mark.parametrize(
    ("settings", "texts"),
    [
        ({}, None),
        ({"language": "be"}, ["па-беларуску"]),
        ({"language": "English"}, ["in English"]),
        ({"language": "be", "task": "translate"}, ["in English"]),
        ({"language": "sv"}, None),
    ],
)
def test_the_language_of_the_settings_chooses_among_subtitles(
    tmp_path: Path, settings: dict[str, str], texts: list[str] | None
):
    write(tmp_path / "a.wav", encoded(3))
    for name, text in (("a.be-BY.vtt", "па-беларуску"), ("a.en.vtt", "in English")):
        write(tmp_path / name, f"WEBVTT\n\n00:01.000 --> 00:02.500\n{text}\n")
    rows = rows_of(open_subtitles, tmp_path, **settings)
    assert ([row.text for row in rows] if texts else reasons(rows)) == (texts or ["bad_label"])


def test_a_tier_is_chosen_by_name_where_there_are_several(talks: Path):
    tier = (
        LONG[LONG.index("    item [1]") : LONG.index("    item [2]")]
        .replace("sentence", "words")
        .replace("item [1]", "item [3]")
    )
    write(talks / "three.TextGrid", LONG.replace("size = 2\nitem", "size = 3\nitem") + tier.replace("справы", "словы"))
    error = refused(open_subtitles, talks)
    assert isinstance(error, UsageError)
    assert "sentence, words" in str(error)
    assert "--data.text_column" in str(error)
    rows = rows_of(open_subtitles, talks, text_column="Words")
    assert rows[-1].text == "Як словы?"
    assert rows[0].text == "Так", "other subtitles have no tiers"
    absent = refused(open_subtitles, talks, text_column="phones")
    assert isinstance(absent, UnhonouredError)
    assert absent.setting == "text_column"


def test_what_cannot_be_read_is_named_with_its_line_and_the_rest_is_used(talks: Path):
    write(talks / "one.srt", SRT.replace("00:00:03,000 -->", "0:0:x -->"))
    write(talks / "four.wav", encoded(5))
    write(talks / "five.wav", encoded(5))
    write(talks / "five.srt", "1\n00:00:02,000 --> 00:00:01,000\nназад\n\n2\n00:00:03,000 --> 00:00:04,000\nдалей\n")
    write(talks / "six.wav", encoded(5))
    write(talks / "six.srt", "1\n00:00:01,000 --> 00:00:02,000\nпрывітанне\n".encode("cp1251"))
    write(talks / "seven.srt", SRT)
    rows = {row.id: row for row in rows_of(open_subtitles, talks)}
    details = {name: row.problem for name, row in rows.items() if row.problem}
    assert {name: problem[0] for name, problem in details.items()} == {
        "one.wav": "bad_label",
        "four.wav": "bad_label",
        "five.wav@2": "bad_segment",
        "six.wav": "bad_label",
    }
    assert "one.srt: line 10: " in details["one.wav"][1]
    assert "five.srt: line 2: " in details["five.wav@2"][1]
    assert "UTF-8" in details["six.wav"][1]
    assert rows["five.wav@3"].text == "далей"
    (note,) = open_subtitles(SourceConfig(path=str(talks))).notes
    assert "seven.srt" in note


def test_a_split_is_a_folder(tmp_path: Path):
    for split in ("train", "test"):
        write(tmp_path / split / "a.wav", encoded(5))
        write(tmp_path / split / "a.srt", SRT.replace("Добры", split))
    assert rows_of(open_subtitles, tmp_path, split="test")[0].text == "test дзень!"
    assert "--data.split" in str(refused(open_subtitles, tmp_path))


def test_recordings_without_subtitles_are_refused(tmp_path: Path):
    write(tmp_path / "a.wav", encoded(1))
    assert isinstance(refused(open_subtitles, tmp_path), UsageError)


@pytest.mark.parametrize("name", ["a.mkv", "a.MP4", "a.mov", "a.oga"])
def test_the_sound_of_a_video_is_a_recording(tmp_path: Path, name: str):
    write(tmp_path / name, encoded(5))
    write(tmp_path / "a.srt", SRT)
    assert [row.id for row in rows_of(open_subtitles, tmp_path)] == [f"{name}@0.5", f"{name}@3"]
