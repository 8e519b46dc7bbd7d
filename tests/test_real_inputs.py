"""`make real`: its inputs, its sound without speech, and its table. The trainings themselves take minutes."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

from bench.real.arms import Extent
from bench.real.inputs import InputError, inputs_of
from bench.real.self_training import divide, join
from bench.real.silence import LEVEL, RATE, SECONDS, clips, write_silence
from bench.real.table import HEAD, markdown, rows_of
from whisper_ft.config.data import SourceConfig
from whisper_ft.data.sources import open_source


def write_set(folder: Path, *names: str, language: str = "lb") -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({"sentence": ["a"], "language": [language]}), path)
    return folder


@pytest.mark.parametrize(
    "names", [("train.parquet", "test.parquet"), ("train/0.parquet", "test/0.parquet")], ids=["files", "folders"]
)
def test_a_corpus_of_files_or_folders_is_found_with_its_language(tmp_path: Path, names: tuple[str, ...]):
    corpus = write_set(tmp_path / "mine", *names)
    write_set(tmp_path / "ljspeech-en", "test.parquet", language="en")
    found = inputs_of({"REAL_CORPUS": str(corpus)})
    assert (found.model, found.name, found.language) == ("openai/whisper-base", "mine", "lb")
    assert found.test.arguments()[:2] == ["--data.path", str(corpus / names[1].partition("/")[0])]
    assert found.english is not None
    assert found.english.settings["language"] == "en"


@pytest.mark.parametrize(
    ("variables", "fact"),
    [
        ({"REAL_MODELS": "{}"}, "REAL_MODELS"),
        ({"REAL_CORPUS": "{}"}, "train"),
        ({"REAL_CORPUS": "{}/two"}, "REAL_LANGUAGE"),
    ],
)
def test_an_input_that_is_missing_is_named(tmp_path: Path, variables: dict[str, str], fact: str):
    write_set(tmp_path / "two/test", "a.parquet", language="be")
    write_set(tmp_path / "two", "train.parquet")
    pq.write_table(pa.table({"language": ["be", "sv"]}), tmp_path / "two/test/a.parquet")
    with pytest.raises(InputError, match=fact):
        inputs_of({name: value.format(tmp_path) for name, value in variables.items()})


@pytest.mark.long
def test_ten_kinds_of_sound_without_speech_are_the_same_every_time(tmp_path: Path):
    assert len(clips()) == 10
    for name, samples in clips().items():
        assert (samples == clips()[name]).all()
        assert len(samples) == SECONDS * RATE
        assert np.abs(samples).max() < 1
        assert name == "zeros" or 0.2 * LEVEL < np.sqrt(np.mean(samples**2)) < 1.1 * LEVEL
    manifest = write_silence(tmp_path)
    assert len(manifest.read_text().splitlines()) == 10
    assert {soundfile.info(path).duration for path in tmp_path.glob("*.flac")} == {float(SECONDS)}


def scored(wer: float) -> dict[str, Any]:
    common = {"cer": 0.1, "eval_loss": 1.0, "utterances": 81, "audio_seconds": 120.0}
    runaway = {"utterances": 4, "errors": 1, "error_share": 0.1, "rate_without": 0.8}
    own = {"wer": wer, "words_on_empty_references": 0, "runaway": runaway}
    return dict.fromkeys(("target", "english"), common | own) | {
        "silence": common | own | {"words_on_empty_references": 30}
    }


def test_the_table_has_a_row_for_each_arm_that_was_scored():
    results: dict[str, Any] = {
        "unmodified": scored(1.268),
        "ours": scored(0.5) | {"updates": 40, "minutes": 15.0, "batch": 8},
        "mean_seconds": 5.0,
        "machine": {"cpu": "a cpu", "packages": {"torch": "1", "transformers": "2"}},
        "extent": {"threads": 2, "batch": 8},
        "date": "2026-11-28",
        "corpus": "mine",
    }
    rows = [dict(zip(HEAD, row, strict=True)) for row in rows_of(results)]
    assert [row["model"] for row in rows] == ["unmodified", "train.py"]
    assert rows[0]["WER"] == "126.8 %"
    assert rows[0]["words/min on silence"] == "15"
    assert rows[1]["speech s/s"] == f"{40 * 8 * 5 / 900:.2f}"
    assert "mine, a cpu, 2 threads" in markdown(results)


def test_both_arms_train_for_the_same_minutes():
    extent = Extent(minutes=15, batch=8, passes=2, english_utterances=40, threads=2)
    assert extent.steps(20.0) == 45
    assert extent.steps(10_000.0) == 1


def test_the_halves_of_a_corpus_share_no_row_and_one_has_no_texts(tmp_path: Path):
    (tmp_path / "train").mkdir()
    rows = [{"audio": {"bytes": bytes([n]), "path": str(n)}, "sentence": f"s{n}", "language": "lb"} for n in range(7)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "train/0.parquet")
    assert divide(tmp_path / "train", tmp_path) == {"a": 4, "b": 3}
    halves = {
        name: pq.read_table(tmp_path / f"half-{name}/train.parquet").to_pylist() for name in ("a", "b", "b-audio")
    }
    assert sorted(row["sentence"] for row in halves["a"] + halves["b"]) == [f"s{n}" for n in range(7)]
    assert [row["audio"] for row in halves["b-audio"]] == [row["audio"] for row in halves["b"]]
    assert all("sentence" not in row for row in halves["b-audio"])
    assert join([tmp_path / "half-a", tmp_path / "half-b"], tmp_path / "both") == 7
    assert len(open_source(SourceConfig(path=str(tmp_path / "both"))).read(0)) == 4
