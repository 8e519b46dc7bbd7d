"""A text that `transcribe` wrote beside a recording is no label until a person has changed it."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import run
from whisper_ft.config.data import SourceConfig
from whisper_ft.data.formats.transcript_texts import RECORD, record_transcript
from whisper_ft.data.sources import open_source
from whisper_ft.data.types import RejectedError, Row


def read(folder: Path, **settings: str) -> Iterator[Row | RejectedError]:
    source = open_source(SourceConfig(path=str(folder), **settings))
    for chunk in range(len(source.rows)):
        yield from source.read(chunk)


def texts(folder: Path, **settings: str) -> dict[str, str | None]:
    """The text of each row by its id; None for a row whose text a model wrote."""
    return {row.id: row.text if not row.problem else None for row in read(folder, **settings)}


@pytest.fixture
def talks(trained: Path, sounds: Path, tmp_path: Path) -> Path:
    """Two recordings with the texts and subtitles of a model."""
    folder = tmp_path / "talks"
    (folder / "deep").mkdir(parents=True)
    shutil.copy(sounds / "a.flac", folder)
    shutil.copy(sounds / "phone.wav", folder / "deep")
    ended = run("whisper_ft/__main__.py", "transcribe", str(trained), str(folder), "--to", "txt,srt")
    assert ended.code == 0, ended.out + ended.err
    return folder


@pytest.mark.long
def test_what_transcribe_wrote_is_a_label_only_once_it_is_corrected(talks: Path):
    assert texts(talks) == {"a.flac": None, "deep/phone.wav": None}
    assert all(text is None for text in texts(talks, format="subtitles").values())
    (talks / "a.txt").write_text("выпраўлена\n", encoding="utf-8")
    assert texts(talks) == {"a.flac": "выпраўлена", "deep/phone.wav": None}
    (talks / "deep" / RECORD).unlink()  # a person has checked them
    assert texts(talks)["deep/phone.wav"] is not None


@pytest.mark.long
def test_transcripts_in_another_folder_leave_no_record_there(trained: Path, sounds: Path, tmp_path: Path):
    ended = run("whisper_ft/__main__.py", "transcribe", str(trained), str(sounds / "a.flac"), "--out", str(tmp_path))
    assert (ended.code, [path.name for path in tmp_path.iterdir()]) == (0, ["a.flac.txt"])


def test_a_record_that_was_cut_counts_for_its_whole_lines(sounds: Path, tmp_path: Path):
    shutil.copy(sounds / "a.flac", tmp_path)
    content = "так\n".encode()
    (tmp_path / "a.txt").write_bytes(content)
    record_transcript(tmp_path / "a.txt", content, "a model")
    with (tmp_path / RECORD).open("ab") as file:
        file.write(b'[]\n{"file": "a.txt", "sha\n\xff')
    assert texts(tmp_path) == {"a.flac": None}
