"""Layouts of other people's folders and lists, each opened by its path alone."""

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from whisper_ft.config.data import DataConfig
from whisper_ft.data.formats import text_lines
from whisper_ft.data.formats.detect import format_of
from whisper_ft.data.sources import open_mixture
from whisper_ft.runtime.errors import DataError, RunError, UsageError

TEXTS = ["Добры дзень.", '"Так", — сказаў ён', "Лес; зялёны"]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    return folder


def write_clips(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(folder / name, np.random.default_rng(1).uniform(-0.5, 0.5, 8000), 16_000)


def read(path: Path, **settings: Any) -> list[tuple[str, str | None]]:
    """Id and transcript of each row; all rows have audio."""
    source = open_mixture(DataConfig(path=str(path), **settings))
    rows = [row for chunk in range(len(source.rows)) for row in source.read(chunk)]
    assert [row.problem for row in rows] == [None] * len(rows)
    assert all(len(row.audio) > 1000 for row in rows)
    return [(row.id, row.text) for row in rows]


def expected(*names: str) -> list[tuple[str, str]]:
    return list(zip(names, TEXTS, strict=True))


def test_metadata_beside_a_folder_of_clips_is_an_audio_folder(data: Path):
    names = [f"clips/{number}.wav" for number in range(3)]
    write_clips(data, *names)
    lines = [f"{name}\t{text}" for name, text in zip(names, TEXTS, strict=True)]
    (data / "metadata.csv").write_text("\n".join(["file_name\ttranscription", *lines]).replace('"', "'"))
    assert [name for name, _ in read(data)] == names


@pytest.mark.parametrize("separator", [",", ";", "|", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_a_csv_is_read_by_its_separator_and_encoding(data: Path, separator: str, encoding: str):
    write_clips(data, "0.wav", "1.wav", "2.wav")
    quoted = ['"{}"'.format(text.replace('"', '""')) for text in TEXTS]
    lines = [separator.join(("File_Name", "Sentence", "Speaker"))]
    lines += [separator.join((f"{number}.wav", text, "m")) for number, text in enumerate(quoted)]
    (data / "metadata.csv").write_bytes("\r\n".join(lines).encode(encoding))
    assert read(data) == expected("0.wav", "1.wav", "2.wav")
    (data / "metadata.csv").rename(data / "list.csv")
    assert read(data / "list.csv") == expected("0.wav", "1.wav", "2.wav")


@pytest.mark.parametrize("suffix", ["jsonl", "tsv", "tsv.gz"])
def test_other_lists_may_be_utf_16_and_have_columns_in_any_case(data: Path, suffix: str):
    write_clips(data, "0.wav")
    text = '{"Audio_FilePath": "0.wav", "TEXT": "так", "Duration": 0.5, "LANG": "be"}\n'
    if suffix.startswith("tsv"):
        text = "PATH\tText\tClient_ID\tID\n0.wav\tтак\tm\tone\n"
    content = text.encode("utf-16")
    (data / f"list.{suffix}").write_bytes(gzip.compress(content) if suffix.endswith("gz") else content)
    source = open_mixture(DataConfig(path=str(data / f"list.{suffix}")))
    (row,) = source.read(0)
    assert (row.text, row.problem) == ("так", None)
    if suffix == "jsonl":
        assert row.stated == 0.5
    else:
        assert (row.speaker, row.id) == ("m", "one")


def test_a_column_in_other_case_gives_way_to_an_exact_one(data: Path):
    write_clips(data, "0.wav")
    (data / "list.csv").write_text("Path,path,Sentence,text\nno.wav,0.wav,другі,так\n")
    assert read(data / "list.csv") == [("0.wav", "так")]


@pytest.mark.parametrize("columns", [2, 3])
def test_the_list_of_ljspeech_has_no_header(data: Path, columns: int):
    names = [f"LJ001-000{number}" for number in range(3)]
    write_clips(data / "wavs", *(f"{name}.wav" for name in names))
    lines = ["|".join((name, text, text.lower())[:columns]) for name, text in zip(names, TEXTS, strict=True)]
    (data / "metadata.csv").write_text("\n".join(lines) + "\n")
    assert read(data) == read(data / "metadata.csv") == expected(*(f"wavs/{name}.wav" for name in names))
    if columns == 3:
        assert read(data, text_column="normalized_text")[0][1] == TEXTS[0].lower()
    with (data / "metadata.csv").open("a") as file:
        file.write("LJ001-0004|a|b|c|d\n")
    source = open_mixture(DataConfig(path=str(data)))
    problem = source.read(0)[-1].problem
    assert problem is not None
    assert problem[0] == "bad_line"


def test_librispeech_is_read_by_its_lists_of_transcripts(data: Path):
    for subset, speaker in (("dev-clean", "84"), ("test-clean", "61")):
        folder = data / "LibriSpeech" / subset / speaker / "7"
        write_clips(folder, *(f"{speaker}-7-000{number}.flac" for number in range(3)))
        lines = [f"{speaker}-7-000{number} {text}" for number, text in enumerate(TEXTS)]
        (folder / f"{speaker}-7.trans.txt").write_text("\n".join(lines) + "\n")
    names = [f"84/7/84-7-000{number}.flac" for number in range(3)]
    for path in (data, data / "LibriSpeech"):
        assert format_of(str(path)) == "librispeech"
        with pytest.raises(UsageError, match="dev-clean, test-clean"):
            read(path)
        assert [text for _, text in read(path, split="dev-clean+test-clean")] == TEXTS * 2
    assert read(data / "LibriSpeech", split="dev-clean") == expected(*(f"dev-clean/{name}" for name in names))
    assert read(data / "LibriSpeech" / "dev-clean") == expected(*names)
    source = open_mixture(DataConfig(path=str(data / "LibriSpeech" / "dev-clean" / "84" / "7")))
    assert {row.speaker for row in source.read(0)} == {"84"}


def test_a_line_of_librispeech_without_its_file_is_a_row_with_a_problem(data: Path):
    write_clips(data, "1-2-0000.flac")
    (data / "1-2.trans.txt").write_bytes("1-2-0000 ТАК\n1-2-0001 НЕ\n1-2-0000 ".encode() + b"\xff\n")
    rows = open_mixture(DataConfig(path=str(data))).read(0)
    assert [row.problem and row.problem[0] for row in rows] == [None, "missing_file", "bad_label"]


def test_pairs_of_audio_and_text_are_read(data: Path):
    write_clips(data, "a/0.wav", "a/1.flac", "b/2.wav")
    encodings = ("utf-8-sig", "utf-16", "utf-8")
    for name, text, encoding in zip(("a/0", "a/1", "b/2"), TEXTS, encodings, strict=True):
        (data / f"{name}.txt").write_bytes(f"{text}\n".encode(encoding))
    assert format_of(str(data)) == "pairs"
    assert read(data) == expected("a/0.wav", "a/1.flac", "b/2.wav")


def test_a_pair_that_is_not_whole_is_told(data: Path):
    write_clips(data, "0.wav", "1.wav", "2.wav")
    (data / "0.txt").write_text("першы радок\nдругі радок\n")
    (data / "1.txt").write_bytes(b"\xff\xff\xff")
    (data / "README.txt").write_text("пра гэта")
    source = open_mixture(DataConfig(path=str(data)))
    rows = source.read(0)
    assert [row.problem and row.problem[0] for row in rows] == [None, "bad_label", "bad_label"]
    assert rows[0].text == "першы радок другі радок"
    assert any("README.txt" in note for note in source.notes)


def test_a_split_of_pairs_is_a_folder(data: Path):
    for split in ("train", "test"):
        write_clips(data, f"{split}/0.wav")
        (data / split / "0.txt").write_text(split)
    assert read(data, split="test") == [("test/0.wav", "test")]
    with pytest.raises(UsageError, match=r"test, train.*--data.split"):
        read(data)


def test_a_link_of_a_pair_stays_in_its_folder(data: Path, tmp_path: Path):
    write_clips(data, "0.wav")
    (tmp_path / "secret").write_text("сакрэт")
    (data / "0.txt").symlink_to(tmp_path / "secret")
    (row,) = open_mixture(DataConfig(path=str(data))).read(0)
    assert row.problem is not None
    assert row.problem[0] == "outside_root"
    assert read(data, allowed_folders=[str(tmp_path)]) == [("0.wav", "сакрэт")]


@pytest.mark.parametrize("name", ["list.jsonl", "list.csv", "list.tsv", "list.jsonl.gz"])
def test_a_list_of_one_endless_line_is_refused_in_bounded_memory(data: Path, name: str):
    content = b"path\ttext\n" + b"x" * (text_lines.MAX_LINE_CHARACTERS + 2**20)
    (data / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    with pytest.raises(DataError, match="characters"):
        open_mixture(DataConfig(path=str(data / name)))


def test_a_list_that_unpacks_to_far_more_than_its_size_is_refused(data: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(text_lines, "MAX_EXTRA_CHARACTERS", 2**20)
    (data / "list.jsonl.gz").write_bytes(gzip.compress(b"\n" * 2**23))
    with pytest.raises(RunError, match="unpacks"):
        open_mixture(DataConfig(path=str(data / "list.jsonl.gz")))
