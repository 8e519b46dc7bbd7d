"""Settings of a data set in every format: each has its effect, or is refused with the reason.

The matrix is that of all formats and all fields of `SourceConfig`: a new one without a case here fails.
"""

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, DatasetDict

from tests.elsewhere import AUDIO
from tests.test_columns import table, webdataset
from whisper_ft.config.data import Format, NamedSourceConfig, SourceConfig, WeightedSourceConfig
from whisper_ft.config.scoring import EvaluationConfig
from whisper_ft.config.training import TrainingConfig
from whisper_ft.config.tree import with_values
from whisper_ft.data.formats.honoured import REFUSED, refuse_unhonoured
from whisper_ft.data.sources import open_held_out, open_source, refuse_beside_sources
from whisper_ft.data.types import UnhonouredError
from whisper_ft.runtime.errors import UsageError

FORMATS = [name for name in get_args(Format) if name != "auto"]
SETTINGS = [field.name for field in fields(SourceConfig)]
TEXTS = ["раз", "два"]
TESTED_ELSEWHERE = {"path", "format", "allowed_folders", "reading", "text_times"}
"""Settings whose effect other tests show, as test_allowed_folders.py, test_format.py and test_segment_times.py."""
COLUMNS = [f"{kind}_column" for kind in ("audio", "text", "language", "task", "segments", "prompt")]
GIVEN: dict[str, Any] = {"allowed_folders": ["/other"], "text_times": True, "revision": "main"}
GIVEN |= {"language": "sv", "task": "translate"} | dict.fromkeys(
    ("split", "config_name", "audio_root", *COLUMNS), "other"
)
"""A value of each setting that differs from the default."""


def rows(split: str) -> list[dict[str, Any]]:
    """Rows with two columns of everything, of which `other` is not found unasked."""
    both = {"language": "be", "language_2": "pl", "task": "transcribe", "task_2": "translate"}
    both |= {"segments_2": '[{"start":0}]', "prompt_2": "names"}  # without commas, which CSV would have to quote
    return [
        {"audio": f"{n}.wav", "audio_2": f"b{n}.wav", "text": f"{split} {text}", "text_2": f"2 {text}", **both}
        for n, text in enumerate(TEXTS)
    ]


def clips(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("0", "1", "b0", "b1"):
        (folder / f"{name}.wav").write_bytes(f"{folder.name}/{name}".encode())


def parquet(folder: Path) -> str:
    for config in ("one", "two"):
        for split in ("train", "test"):
            lines = [
                row | {name: {"bytes": row[name].encode(), "path": None} for name in ("audio", "audio_2")}
                for row in rows(f"{config} {split}")
            ]
            kinds = {name: pa.string() for name in lines[0]} | {"audio": AUDIO, "audio_2": AUDIO}
            (folder / config).mkdir(exist_ok=True)
            file = folder / config / f"{split}-00000-of-00001.parquet"
            pq.write_table(pa.Table.from_pylist(lines, pa.schema([*kinds.items()])), file)
    return str(folder)


def manifest(folder: Path) -> str:
    for place in (folder, folder / "elsewhere"):
        clips(place)
    return str(table(folder / "list.csv", rows("train"), ","))


def audiofolder(folder: Path) -> str:
    clips(folder / "elsewhere")
    for split in ("train", "test"):
        clips(folder / "set" / split)
        table(folder / "set" / split / "metadata.csv", rows(split), ",")
    return str(folder / "set")


def common_voice(folder: Path) -> str:
    for locale in ("be", "pl"):
        clips(folder / locale / "clips")
        for split in ("train", "test"):
            lines = [
                {"path": row.pop("audio"), "sentence": row.pop("text"), "locale": row.pop("language"), **row}
                for row in rows(f"{locale} {split}")
            ]
            table(folder / locale / f"{split}.tsv", lines, "\t")
    return str(folder)


def saved_dataset(folder: Path) -> str:
    for place in (folder / "set", folder / "elsewhere"):
        clips(place)
    DatasetDict({split: Dataset.from_list(rows(split)) for split in ("train", "test")}).save_to_disk(folder / "set")
    return str(folder / "set")


def shards(folder: Path) -> str:
    said = {name: [row[name] for row in [*rows("train"), rows("train")[0]]] for name in (*rows("")[0],)}
    return str(webdataset(folder, {name: values for name, values in said.items() if name != "text"}))


def kaldi(folder: Path) -> str:
    for place in (folder, folder / "elsewhere"):
        clips(place)
    said = {"text": TEXTS, "wav.scp": ["0.wav", "1.wav"], "utt2lang": ["be"] * 2}
    said |= {"utt2language_2": ["pl"] * 2, "utt2task_2": ["translate"] * 2}
    said |= {"utt2segments_2": ['[{"start":0}]'] * 2, "utt2prompt_2": ["names"] * 2}
    for name, values in said.items():
        (folder / name).write_text("".join(f"u{n} {value}\n" for n, value in enumerate(values)), encoding="utf-8")
    return str(folder)


def librispeech(folder: Path) -> str:
    for split in ("train", "test"):
        clips(folder / split / "1" / "2")
        (folder / split / "1" / "2" / "1-2.trans.txt").write_text(f"0 {split} a\n1 {split} b\n", encoding="utf-8")
    return str(folder)


def pairs(folder: Path) -> str:
    for split in ("train", "test"):
        clips(folder / split)
        for name in ("0", "1"):
            (folder / split / f"{name}.txt").write_text(f"{split} {name}", encoding="utf-8")
    return str(folder)


def subtitles(folder: Path) -> str:
    for split in ("train", "test"):
        clips(folder / split)
        for name in ("0", "1"):
            tiers = "".join(
                f'"IntervalTier" "{tier}" 0 9 1 1 2 "{split} {tier} {name}"\n' for tier in ("text_1", "text_2")
            )
            grid = f'File type = "ooTextFile"\nObject class = "TextGrid"\n\n0 9 <exists> 2\n{tiers}'
            (folder / split / f"{name}.TextGrid").write_text(grid, encoding="utf-8")
    return str(folder)


MAKE: dict[str, Callable[[Path], str]] = {
    "parquet": parquet,
    "manifest": manifest,
    "audiofolder": audiofolder,
    "common_voice": common_voice,
    "saved_dataset": saved_dataset,
    "webdataset": shards,
    "kaldi": kaldi,
    "librispeech": librispeech,
    "pairs": pairs,
    "subtitles": subtitles,
}
"""A data set of each format that needs no network; test_sources_hub.py has that of the Hub."""
NEEDED = {
    "audiofolder": {"split": "train"},
    "librispeech": {"split": "train", "format": "librispeech"},
    "pairs": {"split": "train", "format": "pairs"},
    "subtitles": {"split": "train", "text_column": "text_1"},
    "saved_dataset": {"split": "train"},
    "parquet": {"split": "train", "config_name": "one"},
    "common_voice": {"config_name": "be"},
}
"""Settings without which the data set is not opened, or not as one."""
OTHER = {
    "split": "test",
    "audio_column": "audio_2",
    "text_column": "text_2",
    "language_column": "language_2",
    "task_column": "task_2",
    "segments_column": "segments_2",
    "prompt_column": "prompt_2",
    "language": "sv",
    "task": "translate",
}
"""A value with an effect; `other_value` has those that depend on the format."""


def other_value(setting: str, format_name: str, folder: Path) -> str:
    if setting == "config_name":
        return {"parquet": "two", "common_voice": "pl"}[format_name]
    if setting == "audio_root":
        return str(folder / "elsewhere")
    return OTHER[setting]


def content(where: SourceConfig) -> list[tuple[Any, ...]]:
    source = open_source(where)
    return [
        (row.audio, row.text, row.language, row.task, row.problem, row.prompt, row.label_problem)
        for chunk in range(len(source.rows))
        for row in source.read(chunk)
    ]


def test_every_format_is_in_the_table():
    assert set(REFUSED) == set(FORMATS) == {*MAKE, "hub"}
    assert {name for names in REFUSED.values() for name in names} <= {*SETTINGS} - {
        "path",
        "format",
        "language",
        "task",
    }


@pytest.mark.parametrize("setting", [name for name in SETTINGS if name not in ("path", "format", "reading")])
@pytest.mark.parametrize("name", FORMATS)
def test_a_setting_has_an_effect_or_is_refused(name: str, setting: str, tmp_path: Path):
    if setting in REFUSED[name]:
        with pytest.raises(UnhonouredError, match=f"--data.{setting} .*{name}") as refused:
            refuse_unhonoured(with_values(SourceConfig(path="here"), {setting: GIVEN[setting]}), name)
        assert (refused.value.setting, refused.value.exit_code) == (setting, 2)
        assert "\n" not in str(refused.value)
    if name == "hub":
        return
    where = with_values(SourceConfig(path=MAKE[name](tmp_path)), NEEDED.get(name, {}))
    assert content(where), "the set is read without the setting"
    if setting in REFUSED[name]:
        with pytest.raises(UnhonouredError):
            open_source(with_values(where, {setting: GIVEN[setting]}))
    elif setting not in TESTED_ELSEWHERE:
        assert content(with_values(where, {setting: other_value(setting, name, tmp_path)})) != content(where)


GIVEN_BESIDE = {name: value for name, value in GIVEN.items() if name not in ("language", "task")} | {
    "format": "parquet"
}
FOR_HELD_OUT = {
    "split": "test",
    "config_name": "be_by",
    "revision": "main",
    "language_column": "said",
    "text_column": "x",
    "segments_column": "parts",
}


def test_what_a_held_out_set_inherits_and_cannot_honour_is_left_out(tmp_path: Path):
    data = {f"data.{name}": value for name, value in FOR_HELD_OUT.items()}
    config = with_values(TrainingConfig(), {"data.path": "owner/name", "eval.path": manifest(tmp_path), **data})
    assert config.held_out
    source = open_held_out(config, config.held_out)
    assert [row.text for row in source.read(0)] == ["train раз", "train два"]


def test_what_is_said_for_the_held_out_set_itself_is_refused(tmp_path: Path):
    config = with_values(TrainingConfig(), {"eval.path": manifest(tmp_path), "eval.split": "test"})
    assert config.held_out
    with pytest.raises(UsageError, match=r"--eval.split test"):
        open_held_out(config, config.held_out)


@pytest.mark.parametrize("setting", [*GIVEN_BESIDE])
def test_beside_several_sources_a_setting_that_none_takes_is_refused(setting: str):
    sources = [WeightedSourceConfig(path="a"), WeightedSourceConfig(path="b")]
    given = {f"data.{setting}": GIVEN_BESIDE[setting], "labels.prompt_share": 0.5}
    config = with_values(TrainingConfig(), {"data.sources": sources, **given})
    with pytest.raises(UsageError, match=f"--data.{setting} .*data.sources"):
        refuse_beside_sources(config)
    with_held_out = with_values(config, {"eval.path": "c"})
    if setting == "split":  # the held-out set has a setting of its own for it
        with pytest.raises(UsageError, match=r"--data.split"):
            refuse_beside_sources(with_held_out)
    else:
        refuse_beside_sources(with_held_out)


@pytest.mark.parametrize("setting", [*GIVEN_BESIDE])
def test_beside_several_sets_of_an_evaluation_a_setting_that_none_takes_is_refused(setting: str):
    given = GIVEN_BESIDE[setting]
    with pytest.raises(ValueError, match=f"--data.{setting}"):
        EvaluationConfig(data=with_values(SourceConfig(), {setting: given}), sets=[NamedSourceConfig(path="a")])
    with pytest.raises(ValueError, match=f"--data.{setting}"):
        EvaluationConfig(data=with_values(SourceConfig(), {setting: given}), predictions=Path("p.jsonl"))


def test_the_sets_of_an_evaluation_take_language_and_task_from_data():
    data = SourceConfig(language="be", task="translate")
    config = EvaluationConfig(data=data, sets=[NamedSourceConfig(path="a"), NamedSourceConfig(path="b", language="sv")])
    assert [(where.language, where.task) for _, where in config.named_sets] == [
        ("be", "translate"),
        ("sv", "translate"),
    ]
