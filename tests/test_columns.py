"""Columns of the data that travel with the rows: from every kind of source, through evaluate.py, to its breakdowns."""

import io
import json
import math
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, Features, Value

from tests.conftest import run
from tests.elsewhere import AUDIO, serve
from whisper_ft.config.data import SourceConfig
from whisper_ft.data.formats.columns import SPEAKER_COLUMNS, text_of
from whisper_ft.data.sources import open_source
from whisper_ft.runtime.errors import UsageError

TEXTS = ["раз", "два", "тры"]
SAID: dict[str, list[Any]] = {"age": [20, 31, None], "gender": ["female", None, "male"], "native": [True, False, True]}
AS_TEXT = [
    {"age": "20", "gender": "female", "native": "True"},
    {"age": "31", "gender": None, "native": "False"},
    {"age": None, "gender": "male", "native": "True"},
]
CLIPS = [f"{number}.wav" for number in range(3)]


def parquet(folder: Path, said: dict[str, list[Any]]) -> Path:
    audio = pa.array([{"bytes": b"RIFF", "path": None}] * 3, AUDIO)
    pq.write_table(pa.table({"audio": audio, "sentence": TEXTS, **said}), folder / "a.parquet")
    return folder / "a.parquet"


def lines_of(said: dict[str, list[Any]], audio: str, text: str) -> list[dict[str, Any]]:
    return [
        {audio: clip, text: spoken, **{name: values[number] for name, values in said.items()}}
        for number, (clip, spoken) in enumerate(zip(CLIPS, TEXTS, strict=True))
    ]


def table(path: Path, lines: list[dict[str, Any]], between: str) -> Path:
    rows = [["" if value is None else str(value) for value in line.values()] for line in lines]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(between.join(row) for row in [[*lines[0]], *rows]) + "\n", encoding="utf-8")
    return path


def json_lines(folder: Path, said: dict[str, list[Any]]) -> Path:
    texts = [json.dumps(line) for line in lines_of(said, "audio", "text")]
    (folder / "list.jsonl").write_text("\n".join(texts) + "\n")
    return folder / "list.jsonl"


def csv(folder: Path, said: dict[str, list[Any]]) -> Path:
    return table(folder / "list.csv", lines_of(said, "audio", "text"), ",")


def tsv(folder: Path, said: dict[str, list[Any]]) -> Path:
    return table(folder / "list.tsv", lines_of(said, "audio", "text"), "\t")


def audiofolder(folder: Path, said: dict[str, list[Any]]) -> Path:
    table(folder / "set/metadata.csv", lines_of(said, "file_name", "transcription"), ",")
    return folder / "set"


def audiofolder_of_parquet(folder: Path, said: dict[str, list[Any]]) -> Path:
    (folder / "set").mkdir()
    lines = lines_of(said, "file_name", "transcription")
    pq.write_table(pa.Table.from_pylist(lines), folder / "set/metadata.parquet")
    return folder / "set"


def common_voice(folder: Path, said: dict[str, list[Any]]) -> Path:
    (folder / "be/clips").mkdir(parents=True)
    table(folder / "be/train.tsv", lines_of(said, "path", "sentence"), "\t")
    return folder / "be"


def saved_dataset(folder: Path, said: dict[str, list[Any]]) -> Path:
    Dataset.from_dict({"audio": CLIPS, "sentence": TEXTS, **said}).save_to_disk(folder / "set")
    return folder / "set"


def webdataset(folder: Path, said: dict[str, list[Any]], before: int = 0) -> Path:
    """Samples, behind so many others that say nothing but their text."""
    described = [{"text": "так"}] * before + lines_of(said, "clip", "text")
    with tarfile.open(folder / "a.tar", "w") as tar:
        for number, one in enumerate(described):
            for kind, content in (("wav", b"RIFF"), ("json", json.dumps(one).encode())):
                info = tarfile.TarInfo(f"{number:03}.{kind}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return folder / "a.tar"


def kaldi(folder: Path, said: dict[str, list[Any]]) -> Path:
    """The gender is the speaker's, as in Kaldi's own recipes; what nothing is known of is not listed."""
    for name, keys in {"text": TEXTS, "wav.scp": CLIPS, "utt2spk": ["s0", "s1", "s2"]}.items():
        (folder / name).write_text("".join(f"u{number} {value}\n" for number, value in enumerate(keys)))
    for name, values in said.items():
        kind, key = ("spk2", "s") if name == "gender" else ("utt2", "u")
        known = [(number, value) for number, value in enumerate(values) if value is not None]
        (folder / f"{kind}{name}").write_text("".join(f"{key}{number} {value}\n" for number, value in known))
    return folder


KINDS = [
    parquet,
    json_lines,
    csv,
    tsv,
    audiofolder,
    audiofolder_of_parquet,
    common_voice,
    saved_dataset,
    webdataset,
    kaldi,
]


def columns_of(path: Path | str, *columns: str, **settings: Any) -> list[Any]:
    """Extra columns of all rows, after the source was pickled."""
    source = pickle.loads(pickle.dumps(open_source(SourceConfig(path=str(path), **settings), columns=columns)))
    return [row.columns for chunk in range(len(source.rows)) for row in source.read(chunk)]


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_brings_the_columns_asked_for_as_texts(kind: Callable[..., Path], tmp_path: Path):
    path = kind(tmp_path, SAID)
    assert columns_of(path, *SAID) == AS_TEXT
    assert columns_of(path, "gender") == [{"gender": said["gender"]} for said in AS_TEXT]
    assert columns_of(path) == [None] * 3


@pytest.mark.parametrize("kind", KINDS)
def test_a_column_that_is_not_there_is_refused_with_those_that_are(kind: Callable[..., Path], tmp_path: Path):
    path = kind(tmp_path, SAID)
    with pytest.raises(UsageError, match=r"has no column 'gendr'; set --columns to some of .*gender.*"):
        open_source(SourceConfig(path=str(path)), columns=["age", "gendr"])


@pytest.mark.parametrize("kind", KINDS)
def test_a_fingerprint_knows_of_other_columns_only_where_they_are_asked_for(kind: Callable[..., Path], tmp_path: Path):
    (tmp_path / "more").mkdir()
    few, more = kind(tmp_path, {}), kind(tmp_path / "more", SAID)
    plain = open_source(SourceConfig(path=str(more))).fingerprint()
    if kind in (json_lines, csv, tsv, audiofolder, audiofolder_of_parquet, common_voice, kaldi):
        assert open_source(SourceConfig(path=str(few))).fingerprint() == plain
        assert open_source(SourceConfig(path=str(more)), columns=["gender"]).fingerprint() != plain
    else:  # of files as a whole: their sizes have all columns in them
        assert open_source(SourceConfig(path=str(more)), columns=["gender"]).fingerprint() == plain


def speakers_of(path: Path) -> list[str | None]:
    source = open_source(SourceConfig(path=str(path)))
    return [row.speaker for chunk in range(len(source.rows)) for row in source.read(chunk)]


@pytest.mark.parametrize("column", SPEAKER_COLUMNS)
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind is not kaldi])
def test_every_format_knows_the_same_columns_of_speakers(kind: Callable[..., Path], column: str, tmp_path: Path):
    assert speakers_of(kind(tmp_path, {column: ["m1", None, "f2"]})) == ["m1", None, "f2"]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind is not kaldi])
def test_the_first_column_with_a_value_names_the_speaker(kind: Callable[..., Path], tmp_path: Path):
    said = {"client_id": ["a", "b", None], "speaker": ["c", None, None]}
    assert speakers_of(kind(tmp_path, said)) == ["c", "b", None]


def test_kaldi_says_the_speaker_in_a_file(tmp_path: Path):
    assert speakers_of(kaldi(tmp_path, {})) == ["s0", "s1", "s2"]


@pytest.mark.parametrize("kind", [parquet, saved_dataset])
def test_a_column_of_no_plain_values_names_no_speaker(kind: Callable[..., Path], tmp_path: Path):
    said = {"speaker": [{"name": "a"}, {"name": "b"}, None], "client_id": [1, 2, 3]}
    assert speakers_of(kind(tmp_path, said)) == ["1", "2", "3"]


@pytest.mark.parametrize("kind", [parquet, saved_dataset])
def test_the_classes_of_a_data_set_go_by_their_names(kind: Callable[..., Path], tmp_path: Path):
    features = Features({"audio": Value("string"), "gender": ClassLabel(names=["male", "female"])})
    data = Dataset.from_dict({"audio": CLIPS, "gender": [1, 0, -1]}, features=features).add_column("text", TEXTS)
    if kind is saved_dataset:
        data.save_to_disk(tmp_path / "set")
    else:
        table = data.data.table.drop(["audio"])
        audio = pa.array([{"bytes": b"RIFF", "path": None}] * 3, AUDIO)
        table = table.append_column("audio", audio).replace_schema_metadata(data.data.table.schema.metadata)
        pq.write_table(table, tmp_path / "set.parquet")
    path = tmp_path / ("set" if kind is saved_dataset else "set.parquet")
    assert columns_of(path, "gender") == [{"gender": "female"}, {"gender": "male"}, {"gender": None}]


@pytest.mark.parametrize("kind", [parquet, saved_dataset])
@pytest.mark.parametrize("values", [[b"a", b"b", b"c"], [[1], [2], []], [{"a": 1}] * 3])
def test_a_column_of_no_plain_values_is_refused(kind: Callable[..., Path], values: list[Any], tmp_path: Path):
    path = kind(tmp_path, {"more": values})
    with pytest.raises(UsageError, match="column 'more' should be text, numbers or booleans, it is "):
        open_source(SourceConfig(path=str(path)), columns=["more"])


def test_what_no_split_but_the_chosen_has_is_enough(tmp_path: Path):
    table(tmp_path / "train/metadata.csv", lines_of({}, "file_name", "text"), ",")
    table(tmp_path / "test/metadata.csv", lines_of({"gender": SAID["gender"]}, "file_name", "text"), ",")
    assert columns_of(tmp_path, "gender", split="test") == [{"gender": said["gender"]} for said in AS_TEXT]
    with pytest.raises(UsageError, match=r"train/metadata.csv: has no column 'gender'"):
        open_source(SourceConfig(path=str(tmp_path), split="train"), columns=["gender"])


def test_a_sample_of_a_shard_need_not_have_a_column_that_others_have(tmp_path: Path):
    path = webdataset(tmp_path, {"gender": SAID["gender"]}, before=100)
    assert columns_of(path, "gender")[99:] == [
        {"gender": None},
        {"gender": "female"},
        {"gender": None},
        {"gender": "male"},
    ]


def test_a_bad_line_has_the_columns_too(tmp_path: Path):
    path = json_lines(tmp_path, {"gender": SAID["gender"]})
    path.write_text(path.read_text() + "{\n")
    assert columns_of(path, "gender")[-1] == {"gender": None}


def test_an_index_that_was_kept_without_columns_serves_with_them(tmp_path: Path):
    (tmp_path / "files").mkdir()
    parquet(tmp_path / "files", SAID)
    with serve(tmp_path / "files") as elsewhere:
        where = SourceConfig(path=f"{elsewhere.address}/files/a.parquet")
        open_source(where, tmp_path / "index")
        elsewhere.forget()
        source = open_source(where, tmp_path / "index", [*SAID])
        assert elsewhere.ranges == [], "the footer was kept"
        assert [row.columns for row in source.read(0)] == AS_TEXT


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, None),
        ("", None),
        (math.nan, None),
        (0, "0"),
        (False, "False"),
        (2.5, "2.5"),
        (["a", "ў"], '["a", "ў"]'),
        ({"a": None}, '{"a": null}'),
        ("\udcff ў", "\\udcff ў"),
    ],
)
def test_whatever_a_value_is_it_becomes_text_or_nothing(value: Any, text: str | None):
    assert text_of(value) == text


@pytest.fixture
def spoken(corpus: Path, tmp_path: Path) -> Path:
    """The held-out set of the corpus with what else is known of each row."""
    data = pq.read_table(corpus / "validation")
    genders = ["female" if number % 3 else None for number in range(data.num_rows)]
    ages = [20 + number % 2 for number in range(data.num_rows)]
    data = data.append_column("gender", pa.array(genders)).append_column("age", pa.array(ages))
    pq.write_table(data, tmp_path / "spoken.parquet")
    return tmp_path / "spoken.parquet"


def evaluate(out: Path, *arguments: str, code: int = 0) -> tuple[dict[str, Any], list[dict[str, Any]], str]:
    """Summary, predictions and what was printed."""
    short = [] if "--predictions" in arguments else ["--decoding.max_new_tokens", "12"]
    ended = run("evaluate.py", *arguments, *short, "--out", str(out))
    assert ended.code == code, ended.out + ended.err
    if code:
        return {}, [], ended.err
    rows = [json.loads(line) for line in (out / "predictions.jsonl").read_text(encoding="utf-8").splitlines()]
    return json.loads((out / "summary.json").read_text()), rows, ended.out


@pytest.mark.long
def test_rates_are_broken_down_by_columns_of_the_data_and_again_by_those_of_its_transcripts(
    spoken: Path, micro_whisper: Path, tmp_path: Path
):
    given = ["--model", str(micro_whisper), "--data.path", str(spoken), "--data.language", "be"]
    summary, rows, printed = evaluate(tmp_path / "out", *given, "--columns", "[gender, age, problem]")
    assert [row["gender"] for row in rows] == ["female" if number % 3 else None for number in range(12)]
    assert {row["age"] for row in rows} == {"20", "21"}
    assert {group["name"]: group["utterances"] for group in summary["breakdowns"]["gender"]} == {"female": 8, None: 4}
    for group in summary["breakdowns"]["age"]:
        of_group = [row for row in rows if row["age"] == group["name"]]
        errors = sum(row["substitutions"] + row["deletions"] + row["insertions"] for row in of_group)
        assert (group["utterances"], group["errors"]) == (len(of_group), errors)
    assert "by gender" in printed
    assert "<h3>By " in (tmp_path / "out/report.html").read_text(encoding="utf-8")

    file = str(tmp_path / "out/predictions.jsonl")
    for again in ("again", "and-again"):
        told, same, _ = evaluate(tmp_path / again, "--predictions", file, "--columns", "[age, gender]")
        assert {name: told["breakdowns"][name] for name in ("age", "gender")} == {
            name: summary["breakdowns"][name] for name in ("age", "gender")
        }
        assert [(row["age"], row["gender"]) for row in same] == [(row["age"], row["gender"]) for row in rows]
        file = str(tmp_path / again / "predictions.jsonl")

    plain, without, _ = evaluate(tmp_path / "plain", *given)
    assert plain["wer"] == summary["wer"]
    assert {*rows[0]} - {*without[0]} == {"gender", "age"}


@pytest.mark.long
def test_an_interrupted_evaluation_goes_on_only_with_the_same_columns(
    spoken: Path, micro_whisper: Path, tmp_path: Path
):
    """It is interrupted after its transcription, by a comparison with something else."""
    (tmp_path / "other.jsonl").write_text('{"id": "x", "ref": "x", "hyp": "x"}\n')
    given = ["--model", str(micro_whisper), "--data.path", str(spoken), "--data.language", "be"]
    wrong, before = ["--compare", str(tmp_path / "other.jsonl")], "12 of 12 utterances"
    evaluate(tmp_path / "out", *given, *wrong, code=4)
    evaluate(tmp_path / "out", *given, *wrong, "--columns", "[gender]", code=4)
    _, rows, printed = evaluate(tmp_path / "out", *given, "--columns", "[gender]")
    assert before in printed
    assert rows[1]["gender"] == "female", "and not what was transcribed without it"
