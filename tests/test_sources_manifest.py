"""Manifests: the lines of other people's lists become rows, and a bad line becomes a row that says so."""

import gzip
import json
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import soundfile

from whisper_ft.config.data import SourceConfig
from whisper_ft.data.audio.decode import decode
from whisper_ft.data.formats.file_table import CHUNK_ROWS, SEGMENT_ROWS, FileTable, table_of
from whisper_ft.data.formats.manifest import open_manifest
from whisper_ft.data.storage.files import FolderStore
from whisper_ft.data.types import RejectedError, Row
from whisper_ft.runtime.errors import DataError, RunError, UsageError

RATE = 16_000


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-0.5, 0.5, round(seconds * RATE)).astype(np.float32)


def write_audio(path: Path, seconds: float = 0.5, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, noise(seconds, seed), RATE, subtype="PCM_16")


def listen(row: Row) -> np.ndarray:
    assert row.problem is None
    return decode(row.audio, RATE, 30.0, row.offset, row.duration)


def write_lines(path: Path, *lines: Any) -> Path:
    texts = [line if isinstance(line, str) else json.dumps(line, ensure_ascii=False) for line in lines]
    path.write_text("\n".join(texts) + "\n", encoding="utf-8")
    return path


def rows_of(path: Path | str, **settings: Any) -> list[Row]:
    source = open_manifest(SourceConfig(path=str(path), **settings))
    rows = [row for chunk in range(len(source.rows)) for row in source.read(chunk)]
    named = [source.row_id(chunk, row) for chunk, count in enumerate(source.rows) for row in range(count)]
    assert [row.id for row in rows] == named
    assert len(set(named)) == len(named)
    return rows


def refused(path: Path | str, **settings: Any) -> RunError:
    with pytest.raises(RunError) as error:
        open_manifest(SourceConfig(path=str(path), **settings))
    assert "\n" not in str(error.value)
    return error.value


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """A folder with clips/a.wav and clips/b.flac."""
    write_audio(tmp_path / "clips" / "a.wav", seed=1)
    write_audio(tmp_path / "clips" / "b.flac", seed=2)
    return tmp_path


A = {"text": "так", "audio_filepath": "clips/a.wav"}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("nemo.json", '{"audio_filepath": "clips/a.wav", "duration": 0.5, "text": "так", "language": "be"}\n'),
        ("a.jsonl", '{"path": "clips/a.wav", "sentence": "так", "language": "be", "locale": "xx"}\r\n\r\n'),
        ("a.jsonl", '\ufeff{"audio": {"path": "clips/a.wav"}, "sentence": "так", "language": "be"}'),
        ("a.ndjson", '{"file_name": "clips/a.wav", "transcription": "так", "language": "be"}\n'),
        ("a.csv", '\ufefffile_name,transcription,language\r\nclips/a.wav,"так",be\r\n'),
        ("a.tsv", "path\tsentence\tlanguage\nclips/a.wav\tтак\tbe\n"),
        ("a.tsv", "path\tsentence\tlanguage\r\n./clips/a.wav\tтак\tbe\r\n"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_a_list_is_read_by_the_names_that_others_give_to_its_columns(
    clips: Path, name: str, content: str, packed: bool
):
    path = clips / (f"{name}.gz" if packed else name)
    path.write_bytes(gzip.compress(content.encode()) if packed else content.encode())
    (row,) = rows_of(path)
    assert (row.text, row.language, row.id) == ("так", "be", "clips/a.wav")
    assert np.abs(listen(row) - noise(0.5, 1)).max() < 1e-4


def test_settings_name_other_columns_and_another_folder(clips: Path):
    (clips / "lists").mkdir()
    path = write_lines(clips / "lists" / "a.jsonl", {"sound": "b.flac", "said": "не", "text": "no", "path": "x.wav"})
    (row,) = rows_of(path, audio_column="sound", text_column="said", audio_root=str(clips / "clips"))
    assert (row.text, row.id, len(listen(row))) == ("не", "b.flac", RATE // 2)


def test_segments_of_one_recording_are_heard_where_they_are(tmp_path: Path):
    whole = noise(20)
    soundfile.write(tmp_path / "long.wav", whole, RATE, subtype="FLOAT")
    lines = [
        {"audio": "long.wav", "text": "a", "offset": 2.5, "duration": 1.25},
        {"audio": "long.wav", "text": "b", "start": 18, "end": "19.5"},
        {"audio": {"path": "long.wav", "start_time": 4.0, "end_time": 5.0}, "text": "c"},
        {"audio": "long.wav", "text": "d", "offset": 19},
        {"audio": "long.wav", "text": "e"},
    ]
    rows = rows_of(write_lines(tmp_path / "a.jsonl", *lines))
    for row, (start, end) in zip(rows, [(2.5, 3.75), (18, 19.5), (4, 5), (19, 20), (0, 20)], strict=True):
        assert np.array_equal(listen(row), whole[round(start * RATE) : round(end * RATE)])
    assert [row.id for row in rows] == ["long.wav@2.5", "long.wav@18", "long.wav@4", "long.wav@19", "long.wav"]
    assert len({id(row.audio) for row in rows}) == 1, "the recording is in memory once"


def test_a_csv_keeps_to_its_quotes_and_a_tsv_has_none(clips: Path):
    csv_file = write_lines(clips / "a.csv", "path,text", 'clips/a.wav,"Ён сказаў: ""так"",\nі пайшоў"', "clips/b.flac,")
    assert [row.text for row in rows_of(csv_file)] == ['Ён сказаў: "так",\nі пайшоў', ""]
    tsv_file = write_lines(clips / "a.tsv", "path\ttext", 'clips/a.wav\t"Так', 'clips/b.flac\tне" ""')
    assert [row.text for row in rows_of(tsv_file)] == ['"Так', 'не" ""']


def test_optional_columns_are_read_where_they_say_something(clips: Path):
    lines = [
        A | {"language": "be", "task": "translate", "spk": "m1", "utt_id": "one"},
        A | {"language": "", "locale": "sv-SE", "client_id": 7, "key": 2},
        A | {"language": None},
    ]
    rows = rows_of(write_lines(clips / "a.jsonl", *lines))
    assert [(r.id, r.language, r.task, r.speaker) for r in rows] == [
        ("one", "be", "translate", "m1"),
        ("2", None, None, "7"),
        ("clips/a.wav", None, None, None),
    ]


def test_ids_that_repeat_are_told_apart_in_the_order_of_the_list(clips: Path):
    rows = rows_of(write_lines(clips / "a.jsonl", A, A | {"id": "clips/a.wav#2"}, A, A))
    assert [row.id for row in rows] == ["clips/a.wav", "clips/a.wav#2", "clips/a.wav#3", "clips/a.wav#4"]


GOOD = [A] * 3
BAD_LINES = [
    ("{", "bad_line", "JSON"),
    ("[" * 100_000, "bad_line", "JSON"),
    ('["clips/a.wav", "так"]', "bad_line", "list"),
    ({"text": "так"}, "bad_line", "'audio_filepath'"),
    ({**A, "audio_filepath": 5}, "bad_line", "'audio_filepath'"),
    ({"audio_filepath": "clips/a.wav"}, "bad_label", "'text'"),
    ({**A, "text": ["так"]}, "bad_label", "list"),
    ('{"audio_filepath": "clips/a.wav", "text": "\\ud800"}', "bad_label", "UTF-8"),
    ({**A, "offset": "soon"}, "bad_segment", "offset 'soon'"),
    ({**A, "offset": -1}, "bad_segment", "offset '-1'"),
    ('{"audio_filepath": "clips/a.wav", "text": "так", "offset": 0, "duration": NaN}', "bad_segment", "duration 'nan'"),
    ({**A, "offset": 0, "duration": "inf"}, "bad_segment", "duration 'inf'"),
    ({**A, "offset": 0, "duration": True}, "bad_segment", "duration 'True'"),
    ({**A, "offset": 0, "duration": 10**400}, "bad_segment", "duration '1000"),
    ({**A, "start": 3, "end": 2}, "bad_segment", "3 s"),
    ({**A, "language": 5}, "unknown_language", "'language'"),
]


@pytest.mark.parametrize(("line", "reason", "detail"), BAD_LINES, ids=[f"{i}" for i in range(len(BAD_LINES))])
def test_a_bad_line_is_a_row_with_a_problem_between_good_ones(clips: Path, line: Any, reason: str, detail: str):
    rows = rows_of(write_lines(clips / "a.jsonl", *GOOD, line, A))
    assert [row.problem is None for row in rows] == [True, True, True, False, True]
    problem = rows[3].problem
    assert problem is not None
    assert problem[0] == reason
    assert problem[1].startswith("line 4: ")
    assert detail in problem[1]
    assert rows[3].audio == b""


def test_a_bad_line_keeps_its_text_for_who_scores_it(clips: Path):
    rows = rows_of(write_lines(clips / "a.jsonl", A | {"offset": "x"}, {**A, "audio_filepath": None}, A))
    assert [(row.text, row.id) for row in rows] == [
        ("так", "clips/a.wav"),
        ("так", "a.jsonl#line 2"),
        ("так", "clips/a.wav#2"),
    ]


def test_bytes_that_are_not_utf8_spoil_their_line_only(clips: Path):
    lines = ["path\ttext", "clips/a.wav\tтак", "clips/b.flac\tне"]
    (clips / "a.tsv").write_bytes(
        "\n".join(lines).encode() + b"\nclips/a.wav\t\xff\xfe\n\xff\t\xd1\x82\xd0\xb0\xd0\xba"
    )
    rows = rows_of(clips / "a.tsv")
    assert [row.problem and row.problem[0] for row in rows] == [None, None, "bad_label", "bad_line"]


def test_lines_of_a_table_with_too_few_or_too_many_fields_are_bad(clips: Path):
    for name, tab in (("a.tsv", "\t"), ("a.csv", ",")):
        lines = [f"path{tab}text", f"clips/a.wav{tab}так", "clips/a.wav", f"clips/a.wav{tab}так{tab}і"]
        rows = rows_of(write_lines(clips / name, *lines))
        assert [row.problem and row.problem[0] for row in rows] == [None, "bad_line", "bad_line"]
        assert rows[2].problem == ("bad_line", "line 4: 3 fields, the header has 2")


def test_a_quote_that_is_never_closed_is_told_with_the_lines_it_swallowed(clips: Path):
    rows = rows_of(write_lines(clips / "a.csv", "path,text", "clips/a.wav,так", 'clips/a.wav,"так', "clips/b.flac,не"))
    assert rows[0].problem is None
    assert rows[1].problem is not None
    assert rows[1].problem[0] == "bad_line"
    assert rows[1].problem[1].startswith("line 3 to 4:")
    assert len(rows) == 2


def test_an_odd_line_does_not_change_which_columns_are_read(clips: Path):
    rows = rows_of(write_lines(clips / "a.jsonl", {"audio": "x.wav", "sentence": "іншае"}, *GOOD))
    assert [row.text for row in rows[1:]] == ["так"] * 3
    assert rows[0].problem is not None


@pytest.mark.parametrize(
    "name", ["../out.wav", "clips/../../out.wav", "/etc/passwd", "link.wav", "clips/linked/out.wav", "a\0.wav",
             "file:///etc/passwd", "http://127.0.0.1:9/a.wav", "..", "."],
)  # fmt: skip
def test_a_name_that_leads_out_of_the_folder_is_a_row_with_a_problem(tmp_path: Path, name: str):
    root, out = tmp_path / "root", tmp_path / "out.wav"
    write_audio(root / "clips" / "a.wav")
    write_audio(out)
    (root / "link.wav").symlink_to(out)
    (root / "clips" / "linked").symlink_to(tmp_path)
    rows = rows_of(write_lines(root / "a.jsonl", A | {"audio_filepath": name}, A))
    assert rows[0].problem is not None
    assert rows[0].problem[0] == "outside_root"
    assert (rows[0].audio, rows[1].problem) == (b"", None)


def test_what_is_no_file_is_missing_and_nothing_waits_for_it(clips: Path):
    os.mkfifo(clips / "pipe.wav")
    names = ["gone.wav", "clips", "pipe.wav", "clips/a.wav/b.wav"]
    rows = rows_of(write_lines(clips / "a.jsonl", *(A | {"audio_filepath": name} for name in names)))
    assert [row.problem and row.problem[0] for row in rows] == ["missing_file"] * 4


def test_a_file_over_the_limit_is_not_read(clips: Path):
    with (clips / "huge.wav").open("wb") as file:
        file.truncate(2**30 + 1)  # sparse
    (row,) = rows_of(write_lines(clips / "a.jsonl", A | {"audio_filepath": "huge.wav"}))
    assert row.problem is not None
    assert row.problem[0] == "file_too_large"


def test_an_absolute_name_inside_the_folder_is_the_relative_one_also_through_a_link(clips: Path, tmp_path: Path):
    seen = tmp_path / "seen"
    seen.symlink_to(clips)
    lines = [A | {"audio_filepath": str(root / "clips" / "a.wav")} for root in (clips.resolve(), seen)]
    write_lines(clips / "a.jsonl", lines[0], lines[1], A | {"audio_filepath": f"file://{seen}/clips/b.flac"})
    rows = rows_of(seen / "a.jsonl")
    assert [(row.id, row.problem) for row in rows] == [
        ("clips/a.wav", None),
        ("clips/a.wav#2", None),
        ("clips/b.flac", None),
    ]


def test_ids_and_fingerprint_are_the_same_when_the_folder_has_moved(clips: Path, tmp_path: Path):
    def write(root: Path) -> FileTable:
        lines = [A, A | {"audio_filepath": str(root / "clips" / "b.flac"), "offset": 0.1}, "{"]
        return open_manifest(SourceConfig(path=str(write_lines(root / "a.jsonl", *lines))))

    before = write(clips)
    moved = tmp_path / "elsewhere"
    shutil.copytree(clips / "clips", moved / "clips")
    after = write(moved)
    assert [before.row_id(0, row) for row in range(3)] == [after.row_id(0, row) for row in range(3)]
    assert before.fingerprint() == after.fingerprint()
    write_lines(moved / "a.jsonl", A | {"text": "не"}, A, "{")
    assert open_manifest(SourceConfig(path=str(moved / "a.jsonl"))).fingerprint() != before.fingerprint()


def test_a_manifest_travels_to_another_process(clips: Path):
    source = open_manifest(SourceConfig(path=str(write_lines(clips / "a.jsonl", A, "{", A | {"offset": 0.1}))))
    copy = pickle.loads(pickle.dumps(source))
    assert copy.read(0) == source.read(0)
    assert copy.fingerprint() == source.fingerprint()


def test_a_manifest_and_its_audio_can_be_elsewhere(clips: Path):
    memory = fsspec.filesystem("memory")
    memory.pipe("/speech/a.wav", (clips / "clips" / "a.wav").read_bytes())
    names = ["a.wav", "memory://speech/a.wav", "/speech/a.wav", "../a.wav", "gone.wav"]
    lines = [json.dumps({"path": name, "text": "так"}) for name in names]
    memory.pipe("/speech/list.jsonl.gz", gzip.compress("\n".join(lines).encode()))
    rows = rows_of("memory://speech/list.jsonl.gz")
    assert [row.problem and row.problem[0] for row in rows] == [None, None, None, "outside_root", "missing_file"]
    assert len(listen(rows[0])) == RATE // 2


def test_names_below_a_web_address_stay_below_it_however_they_are_written():
    folder = FolderStore("https://example.org/speech/")
    assert folder.locate("clips/a 1#?.wav") == "https://example.org/speech/clips/a%201%23%3F.wav"
    assert folder.relative("https://example.org/speech/clips/a%201.wav") == "clips/a 1.wav"
    for name in ("../a.wav", "https://example.org/a.wav", "https://example.org/speech/%2e%2e/a.wav", "/speech/a.wav"):
        with pytest.raises(RejectedError, match="outside_root"):
            folder.relative(name)


@pytest.mark.parametrize(
    ("name", "content", "kind", "said"),
    [
        ("a.json", '[{"path": "a.wav", "text": "так"}]', UsageError, "python -m whisper_ft prepare"),
        ("a.json", '{\n "rows": [\n]}', UsageError, "JSON"),
        ("a.json", '{"rows": []}', UsageError, "audio, path"),
        ("a.jsonl", "нешта\nіншае", UsageError, "line 1: "),
        ("a.jsonl", "", DataError, "a.jsonl: "),
        ("a.csv", "path,text\n", DataError, "a.csv: "),
        ("a.csv", "path:text\na.wav:так\n", UsageError, "--data.audio_column to one of path:text"),
        ("a.txt", "так", UsageError, ".jsonl, .ndjson, .json, .csv, .tsv"),
        ("a.jsonl.gz", "not gzip", DataError, "gzip"),
    ],
)
def test_what_is_no_manifest_is_refused_in_one_line(
    tmp_path: Path, name: str, content: str, kind: type[RunError], said: str
):
    (tmp_path / name).write_text(content, encoding="utf-8")
    error = refused(tmp_path / name)
    assert type(error) is kind
    assert said in str(error)


def test_a_manifest_that_is_not_there_or_cut_short_is_a_data_error(tmp_path: Path):
    assert isinstance(refused(tmp_path / "gone.jsonl"), DataError)
    packed = gzip.compress(os.urandom(5000))
    (tmp_path / "cut.csv.gz").write_bytes(packed[: len(packed) // 2])
    assert isinstance(refused(tmp_path / "cut.csv.gz"), DataError)


def test_a_chunk_goes_on_while_the_recording_does_so_that_it_is_read_once(tmp_path: Path):
    def chunks(*files: str) -> list[int]:
        table = table_of({"id": "x", "file": file} for file in files)
        return FileTable(table, FolderStore(str(tmp_path)), SourceConfig(path="p")).rows

    single = [f"{i}.wav" for i in range(70)]
    assert chunks(*single) == [CHUNK_ROWS, CHUNK_ROWS, 6]
    assert chunks(*single[:20], *["long.wav"] * 100, *single[20:]) == [120, CHUNK_ROWS, 18]
    assert chunks(*["long.wav"] * 600) == [SEGMENT_ROWS, SEGMENT_ROWS, 88]
