"""Folders that hold a data set: audiofolder with metadata, Kaldi data directories, and what datasets saved to disk."""

import io
import json
import pickle
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import datasets
import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from datasets import Dataset, DatasetDict, Features, Value

from whisper_ft.config.data import SourceConfig
from whisper_ft.data.audio.decode import decode
from whisper_ft.data.formats.audiofolder import open_audiofolder
from whisper_ft.data.formats.kaldi import open_kaldi
from whisper_ft.data.formats.saved_dataset import open_saved_dataset
from whisper_ft.data.types import Row
from whisper_ft.runtime.errors import DataError, RunError, UsageError

RATE = 16_000
Open = Callable[[SourceConfig], Any]


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-0.5, 0.5, round(seconds * RATE)).astype(np.float32)


def encoded(seconds: float = 0.2, seed: int = 0, kind: str = "WAV") -> bytes:
    file = io.BytesIO()
    soundfile.write(file, noise(seconds, seed), RATE, format=kind, subtype="PCM_16")
    return file.getvalue()


def write(path: Path, content: str | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def rows_of(opened: Open, path: Path | str, **settings: Any) -> list[Row]:
    """All rows of a source, which has to be the same after a journey to another process."""
    source = pickle.loads(pickle.dumps(opened(SourceConfig(path=str(path), **settings))))
    rows = [row for chunk in range(len(source.rows)) for row in source.read(chunk)]
    named = [source.row_id(chunk, row) for chunk, count in enumerate(source.rows) for row in range(count)]
    assert [row.id for row in rows] == named
    assert len(set(named)) == len(named)
    return rows


def refused(opened: Open, path: Path | str, **settings: Any) -> RunError:
    with pytest.raises(RunError) as error:
        opened(SourceConfig(path=str(path), **settings))
    assert "\n" not in str(error.value)
    return error.value


def listen(row: Row) -> np.ndarray:
    assert row.problem is None
    return decode(row.audio, RATE, 30.0, row.offset, row.duration)


def reasons(rows: list[Row]) -> list[str | None]:
    return [row.problem and row.problem[0] for row in rows]


# Folders of audio with metadata


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_the_metadata_of_an_audiofolder_is_the_list(tmp_path: Path, kind: str):
    columns = {"file_name": ["b.flac", "deep/a.wav"], "path": ["no", "no"], "transcription": ["не", "так, так"]}
    if kind == "parquet":
        pq.write_table(pa.table(columns), tmp_path / "metadata.parquet")
    else:
        table = pa.table(columns).to_pandas()
        csv_text, json_text = table.to_csv(index=False), table.to_json(orient="records", lines=True)
        write(tmp_path / f"metadata.{kind}", csv_text if kind == "csv" else json_text)
    write(tmp_path / "b.flac", encoded(seed=1, kind="FLAC"))
    write(tmp_path / "deep" / "a.wav", encoded(seed=2))
    write(tmp_path / "unnamed.wav", encoded())
    rows = rows_of(open_audiofolder, tmp_path)
    assert [(row.id, row.text) for row in rows] == [("b.flac", "не"), ("deep/a.wav", "так, так")]
    for seed, row in enumerate(rows, 1):
        assert np.abs(listen(row) - noise(0.2, seed)).max() < 1e-4


@pytest.fixture(params=["metadata in each split", "metadata in the folder", "splits in data/"])
def splits(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Splits train, dev and test of two rows each."""
    below = "data/" if "data/" in request.param else ""
    whole = "file_name,text\n"
    for split in ("train", "dev", "test"):
        lines = "file_name,text\n"
        for number in range(2):
            write(tmp_path / below / split / f"{number}.wav", encoded())
            lines += f"{number}.wav,{split} {number}\n"
            whole += f"{split}/{number}.wav,{split} {number}\n"
        if "folder" not in request.param:
            write(tmp_path / below / split / "metadata.csv", lines)
    if "folder" in request.param:
        write(tmp_path / "metadata.csv", whole)
    return tmp_path


@pytest.mark.parametrize(
    ("split", "texts"),
    [
        ("train", ["train 0", "train 1"]),
        ("validation", ["dev 0", "dev 1"]),
        ("dev+train", ["dev 0", "dev 1", "train 0", "train 1"]),
    ],
)
def test_a_split_is_a_subfolder_by_any_of_its_names(splits: Path, split: str, texts: list[str]):
    rows = rows_of(open_audiofolder, splits, split=split)
    assert [row.text for row in rows] == texts
    assert reasons(rows) == [None] * len(texts)
    assert rows[0].id in {f"{below}{texts[0].replace(' ', '/')}.wav" for below in ("", "data/")}


@pytest.mark.parametrize("split", [None, "other", "train+other"])
def test_training_on_the_test_split_needs_to_be_asked_for(splits: Path, split: str | None):
    error = refused(open_audiofolder, splits, split=split)
    assert isinstance(error, UsageError)
    assert "test, train, validation" in str(error)
    assert "--data.split" in str(error)


def test_an_audiofolder_that_is_elsewhere_moved_or_hostile(tmp_path: Path):
    memory = fsspec.filesystem("memory")
    lines = [json.dumps({"file_name": name, "text": "так"}) for name in ("a.wav", "../test/a.wav", "../../x.wav")]
    content = "\n".join([*lines, "{"])
    ids = []
    for root in ("/one", "/two"):
        memory.pipe({f"{root}/train/metadata.jsonl": content.encode(), f"{root}/train/a.wav": encoded()})
        memory.pipe(f"{root}/test/a.wav", encoded())
        rows = rows_of(open_audiofolder, f"memory:/{root}")
        assert reasons(rows) == [None, None, "outside_root", "bad_line"]
        ids.append([row.id for row in rows])
    assert ids[0] == ids[1]
    assert ids[0][0] == "train/a.wav"


def test_what_is_no_audiofolder_is_refused_in_one_line(tmp_path: Path):
    write(tmp_path / "a.wav", encoded())
    assert "metadata.csv, metadata.jsonl" in str(refused(open_audiofolder, tmp_path))
    assert isinstance(refused(open_audiofolder, tmp_path / "gone"), DataError)
    write(tmp_path / "metadata.csv", "file_name,text\na.wav,так\n")
    assert "--data.split" in str(refused(open_audiofolder, tmp_path, split="train"))
    write(tmp_path / "train" / "metadata.jsonl", '{"file_name": "a.wav", "text": "так"}')
    assert "metadata.csv and train/metadata.jsonl" in str(refused(open_audiofolder, tmp_path))


# Kaldi data directories


def write_kaldi(folder: Path, **files: str) -> Path:
    for name, content in files.items():
        write(folder / name.replace("_", "."), content)
    return folder


def test_utterances_of_a_kaldi_directory_come_in_the_order_of_text(tmp_path: Path):
    write(tmp_path / "audio" / "a 1.wav", encoded(seed=1))
    write(tmp_path / "audio" / "b.flac", encoded(seed=2, kind="FLAC"))
    write_kaldi(
        tmp_path,
        text="\ufeffu2 два словы\r\nu1\tадно\r\nu3\r\nu4 няма\r\n",
        wav_scp=f"u1 audio/a 1.wav\nu2 {tmp_path}/audio/b.flac\nu3 audio/a 1.wav\nu5 audio/b.flac\n",
        utt2spk="u1 m1\nu2 f2\n",
        utt2lang="u2 be\n",
    )
    rows = rows_of(open_kaldi, tmp_path)
    assert [(r.id, r.text, r.speaker, r.language) for r in rows] == [
        ("u2", "два словы", "f2", "be"),
        ("u1", "адно", "m1", None),
        ("u3", "", None, None),
        ("u4", "няма", None, None),
    ]
    assert reasons(rows) == [None, None, None, "missing_file"]
    assert np.abs(listen(rows[0]) - noise(0.2, 2)).max() < 1e-4


def test_segments_of_a_kaldi_recording_are_heard_where_they_are(tmp_path: Path):
    long = noise(10)
    soundfile.write(tmp_path / "long.wav", long, RATE, subtype="FLOAT")
    cuts = {"u1": "7.5 9", "u2": "0.00 1.25", "u3": "9 -1", "u4": "5 4", "u5": "x 4", "u6": "1 2 A", "u7": "nan 2"}
    write_kaldi(
        tmp_path,
        text="".join(f"{name} так\n" for name in [*cuts, "u8"]),
        wav_scp="rec long.wav\n",
        segments="".join(f"{name} rec {cut}\n" for name, cut in cuts.items()),
    )
    rows = rows_of(open_kaldi, tmp_path)
    for row, (start, end) in zip(rows, [(7.5, 9), (0, 1.25), (9, 10)], strict=False):
        assert np.array_equal(listen(row), long[round(start * RATE) : round(end * RATE)])
    assert reasons(rows) == [None, None, None, *["bad_segment"] * 5]


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("sph2pipe -f wav a.sph |", "'sph2pipe -f wav a.sph |'"),
        ("touch {}/ran |", "command"),
        ("| cat", "command"),
        ("-", "command"),
        ("raw.ark:1234", "archive"),
    ],
)
def test_a_program_in_wav_scp_is_not_run(tmp_path: Path, entry: str, said: str):
    write_kaldi(tmp_path, text="u1 так\n", wav_scp=f"u1 {entry.format(tmp_path)}\n")
    error = refused(open_kaldi, tmp_path)
    assert isinstance(error, UsageError)
    assert said in str(error)
    assert not (tmp_path / "ran").exists()


def test_bad_lines_of_a_kaldi_directory_are_rows_with_a_problem(tmp_path: Path):
    write(tmp_path / "a.wav", encoded())
    names = ["a.wav", "../a.wav", "/etc/passwd", "a.wav", "\udcff.wav"]
    scp = "".join(f"u{number} {name}\n" for number, name in enumerate(names))
    write(tmp_path / "wav.scp", scp.encode("utf-8", "surrogateescape"))
    write(tmp_path / "text", b"u0 \xd1\x82\nu1 a\nu2 a\nu3 \xff\nu4 a\n\xfe a\nu0 again\n")
    rows = rows_of(open_kaldi, tmp_path)
    found = [None, "outside_root", "outside_root", "bad_label", "bad_line", "bad_line", None]
    assert reasons(rows) == found
    assert [row.id for row in rows][4:] == ["u4", "\\xfe", "u0#2"]


def test_a_kaldi_directory_can_be_elsewhere_with_its_audio_in_another_folder():
    memory = fsspec.filesystem("memory")
    memory.pipe({"/kaldi/text": b"u1 a\n", "/kaldi/wav.scp": b"u1 wav/a.wav\n", "/sound/wav/a.wav": encoded()})
    (row,) = rows_of(open_kaldi, "memory://kaldi", audio_root="memory://sound")
    assert len(listen(row)) == 0.2 * RATE
    assert reasons(rows_of(open_kaldi, "memory://kaldi")) == ["missing_file"]


def test_what_is_no_kaldi_directory_is_refused(tmp_path: Path):
    write_kaldi(tmp_path, text="u1 так\n")
    assert "wav.scp" in str(refused(open_kaldi, tmp_path))
    write_kaldi(tmp_path, text="\n", wav_scp="")
    assert isinstance(refused(open_kaldi, tmp_path), DataError)


# What datasets saved to disk

STRUCT = {"bytes": Value("binary"), "path": Value("string")}


@pytest.fixture(autouse=True)
def quiet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()


def dataset(rows: int, prefix: str = "сказ", **columns: Any) -> Dataset:
    """Rows with audio that is not decoded, as datasets holds it where torchcodec is not installed."""
    audio = [{"bytes": f"{prefix}-{i}".encode() * (1 + i % 7), "path": f"{i}.wav"} for i in range(rows)]
    given = {"audio": audio, "sentence": [f"{prefix} {i}" for i in range(rows)], **columns}
    features = {"audio": STRUCT, "sentence": Value("string")}
    made = Dataset.from_dict(given, features=Features(features) if not columns else None)
    return made.cast_column("audio", datasets.Audio(decode=False))


def test_rows_of_a_saved_dataset_are_those_that_datasets_reads(tmp_path: Path):
    made = dataset(250, client_id=[i % 9 for i in range(250)], language=[None, "be"] * 125)
    made.save_to_disk(tmp_path / "set", num_shards=2)
    rows = rows_of(open_saved_dataset, tmp_path / "set")
    loaded = datasets.load_from_disk(str(tmp_path / "set"))
    assert [row.audio for row in rows] == [audio["bytes"] for audio in loaded["audio"]]
    assert [row.text for row in rows] == list(loaded["sentence"])
    assert [row.speaker for row in rows] == [str(i % 9) for i in range(250)]
    assert [row.language for row in rows] == [None, "be"] * 125
    assert rows[0].id == "data-00000-of-00002.arrow#0"
    assert rows[-1].id == "data-00001-of-00002.arrow#124"


def test_a_chunk_is_a_run_of_rows_of_a_record_batch(tmp_path: Path):
    dataset(210).save_to_disk(tmp_path / "set")
    source = open_saved_dataset(SourceConfig(path=str(tmp_path / "set")))
    assert list(source.rows) == [32, 32, 32, 4, 32, 32, 32, 4, 10]  # datasets writes 100 clips in a batch


def test_a_shuffled_and_filtered_dataset_is_saved_in_its_order(tmp_path: Path):
    made = dataset(120).shuffle(seed=3).select(range(0, 120, 2))
    made.save_to_disk(tmp_path / "set")
    assert [row.text for row in rows_of(open_saved_dataset, tmp_path / "set")] == list(made["sentence"])


def test_of_a_record_batch_only_the_rows_of_the_chunk_are_fetched(tmp_path: Path):
    made = Dataset.from_dict(
        {"audio": [{"bytes": bytes([i]) * 2**17, "path": None} for i in range(100)], "text": ["так"] * 100}
    )
    made.save_to_disk(tmp_path / "set")
    memory = fsspec.filesystem("memory")
    memory.put(str(tmp_path / "set"), "/saved", recursive=True)
    source = open_saved_dataset(SourceConfig(path="memory://saved"))
    fetched: list[int] = []
    read = type(memory).cat_file

    def counted(self: Any, path: str, start: int | None = None, end: int | None = None, **options: Any) -> bytes:
        found = read(self, path, start, end, **options)
        fetched.append(len(found))
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(memory), "cat_file", counted)
        rows = source.read(1)
    assert [row.audio for row in rows] == [bytes([i]) * 2**17 for i in range(32, 64)]
    assert sum(fetched) < 1.1 * 32 * 2**17
    assert len(fetched) <= 4, "requests"


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A DatasetDict of train, validation and test."""
    parts = {name: dataset(3, name) for name in ("train", "validation", "test")}
    DatasetDict(parts).save_to_disk(tmp_path / "dict")
    return tmp_path / "dict"


def test_a_split_of_a_saved_dictionary_is_read_and_several_follow_each_other(saved: Path):
    rows = rows_of(open_saved_dataset, saved, split="validation+train")
    assert [row.text for row in rows] == [f"{name} {i}" for name in ("validation", "train") for i in range(3)]
    assert rows[0].id == "validation/data-00000-of-00001.arrow#0"
    assert [row.text for row in rows_of(open_saved_dataset, saved / "test")] == ["test 0", "test 1", "test 2"]


@pytest.mark.parametrize("split", [None, "dev", "train+dev"])
def test_a_split_that_is_not_there_is_refused_with_the_ones_that_are(saved: Path, split: str | None):
    error = refused(open_saved_dataset, saved, split=split)
    assert isinstance(error, UsageError)
    assert "train, validation, test" in str(error)


@pytest.mark.parametrize("kind", ["float32", "float64", "int16"])
def test_decoded_samples_are_heard_as_they_are(tmp_path: Path, kind: str):
    samples = [noise(0.2, seed) for seed in range(5)]
    kept = [np.round(s * 32768).astype("int16") if kind == "int16" else s.astype(kind) for s in samples]
    audio = {"array": datasets.List(Value(kind)), "sampling_rate": Value("int64"), "path": Value("string")}
    made = Dataset.from_dict(
        {"audio": [{"array": k, "sampling_rate": RATE, "path": None} for k in kept], "text": ["так"] * 5},
        features=Features({"audio": audio, "text": Value("string")}),
    )
    made.save_to_disk(tmp_path / "set")
    for row, expected in zip(rows_of(open_saved_dataset, tmp_path / "set"), samples, strict=True):
        assert np.abs(listen(row) - expected).max() < (1e-4 if kind == "int16" else 1e-9)


def test_samples_without_a_rate_are_a_row_with_a_problem(tmp_path: Path):
    audio = [{"array": [0.5] * 4000, "sampling_rate": rate} for rate in (RATE, None, 0, 2**40)]
    Dataset.from_dict({"audio": audio, "text": ["так"] * 4}).save_to_disk(tmp_path / "set")
    assert reasons(rows_of(open_saved_dataset, tmp_path / "set")) == [None, *["decode_error"] * 3]


def test_a_path_without_bytes_is_read_in_the_folder_and_nowhere_else(tmp_path: Path):
    names = ["a.wav", str(tmp_path / "set" / "a.wav"), "../b.wav", str(tmp_path / "b.wav"), "gone.wav", None]
    as_struct = Features({"audio": STRUCT, "text": Value("string")})
    audio = [{"bytes": None, "path": name} for name in names]
    Dataset.from_dict({"audio": audio, "text": ["так"] * 6}, features=as_struct).save_to_disk(tmp_path / "set")
    Dataset.from_dict({"path": names, "text": ["так"] * 6}).save_to_disk(tmp_path / "paths")
    for folder in (tmp_path / "set", tmp_path / "paths"):
        write(folder / "a.wav", encoded())
    write(tmp_path / "b.wav", encoded())
    rows = rows_of(open_saved_dataset, tmp_path / "set")
    assert reasons(rows) == [None, None, "outside_root", "outside_root", "missing_file", None]
    assert (len(listen(rows[1])), rows[5].audio) == (0.2 * RATE, b"")
    rows = rows_of(open_saved_dataset, tmp_path / "paths")
    assert reasons(rows) == [None, "outside_root", "outside_root", "outside_root", "missing_file", None]


def test_a_saved_dataset_is_the_same_elsewhere(saved: Path, tmp_path: Path):
    shutil.copytree(saved, tmp_path / "moved")
    fsspec.filesystem("memory").put(str(saved), "/moved", recursive=True)
    first, *others = [
        open_saved_dataset(SourceConfig(path=path, split="train"))
        for path in (str(saved), str(tmp_path / "moved"), "memory://moved")
    ]
    for other in others:
        assert other.fingerprint() == first.fingerprint()
        assert other.read(0) == first.read(0)
    dataset(4, "train").save_to_disk(tmp_path / "moved" / "train")
    assert (
        open_saved_dataset(SourceConfig(path=str(tmp_path / "moved"), split="train")).fingerprint()
        != first.fingerprint()
    )


@pytest.mark.parametrize("share", [0.0, 0.001, 0.01, 0.3, 0.9, 0.9999])
def test_an_arrow_file_cut_short_is_refused_before_the_run(tmp_path: Path, share: float):
    dataset(150).save_to_disk(tmp_path / "set")
    (file,) = (tmp_path / "set").glob("*.arrow")
    whole = file.read_bytes()
    file.write_bytes(whole[: int(share * len(whole))])
    error = refused(open_saved_dataset, tmp_path / "set")
    assert isinstance(error, DataError)
    assert str(error).startswith(f"{file}: ")


def test_an_arrow_file_cut_short_after_it_was_opened_is_a_data_error(tmp_path: Path):
    """A memory map of it would end the process with SIGBUS."""
    dataset(150).save_to_disk(tmp_path / "set")
    source = open_saved_dataset(SourceConfig(path=str(tmp_path / "set")))
    (file,) = (tmp_path / "set").glob("*.arrow")
    with file.open("r+b") as opened:
        opened.truncate(3000)
    with pytest.raises(DataError, match=f"^{file}: "):
        source.read(len(source.rows) - 1)


@pytest.mark.long
def test_a_damaged_arrow_file_does_no_more_than_end_the_run_in_its_own_words(tmp_path: Path):
    dataset(40).save_to_disk(tmp_path / "set")
    (file,) = (tmp_path / "set").glob("*.arrow")
    whole, random = file.read_bytes(), np.random.default_rng(0)
    for _ in range(300):
        damaged = bytearray(whole)
        for at in random.integers(0, len(whole), 8):
            damaged[at] = random.choice([0, 1, 127, 128, 255])
        file.write_bytes(damaged)
        with suppress(RunError):
            rows_of(open_saved_dataset, tmp_path / "set")


@pytest.mark.parametrize(
    ("file", "content", "kind", "said"),
    [
        ("state.json", {"_data_files": [{"filename": "../../other.arrow"}]}, DataError, "../../other.arrow"),
        ("state.json", {"_data_files": "x"}, DataError, "state.json"),
        ("state.json", {"_data_files": []}, DataError, "no row"),
        ("state.json", {"_data_files": [{"filename": "gone.arrow"}]}, DataError, "gone.arrow"),
        ("state.json", {"_indices_data_files": [{"filename": "i.arrow"}]}, UsageError, "flatten_indices()"),
        ("state.json", [], DataError, "state.json"),
        ("dataset_dict.json", {"splits": [".."]}, DataError, "dataset_dict.json"),
    ],
)
def test_a_state_that_leads_elsewhere_is_refused(
    tmp_path: Path, file: str, content: Any, kind: type[RunError], said: str
):
    dataset(2).save_to_disk(tmp_path / "set")
    write(tmp_path / "set" / file, json.dumps(content))
    error = refused(open_saved_dataset, tmp_path / "set")
    assert type(error) is kind
    assert said in str(error)


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"audio": [5], "text": ["так"]}, "--data.audio_column"),
        ({"audio": [{"array": [1, 2], "sampling_rate": 1}], "text": ["так"]}, "16-bit integers"),
        ({"audio": [{"array": [[0.5]], "sampling_rate": 1}], "text": ["так"]}, "floats"),
        ({"audio": ["a.wav"], "text": [5]}, "--data.text_column"),
        ({"audio": ["a.wav"], "text": ["так"], "language": [3]}, "--data.language"),
        ({"audio": ["a.wav"], "words": ["так"]}, "--data.text_column to one of audio, words"),
    ],
)
def test_columns_that_cannot_be_used_are_named_before_the_run(tmp_path: Path, columns: dict[str, Any], said: str):
    Dataset.from_dict(columns).save_to_disk(tmp_path / "set")
    error = refused(open_saved_dataset, tmp_path / "set")
    assert isinstance(error, UsageError)
    assert said in str(error)


def test_what_is_no_saved_dataset_is_refused(tmp_path: Path, saved: Path):
    assert "save_to_disk" in str(refused(open_saved_dataset, tmp_path))
    assert "--data.split" in str(refused(open_saved_dataset, saved / "train", split="dev"))
