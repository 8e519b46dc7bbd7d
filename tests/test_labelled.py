"""Language and task of each row: the word of the user wins over columns that were merely found."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, Features, Value

from tests.conftest import run
from tests.elsewhere import AUDIO
from tests.test_columns import KINDS, kaldi
from whisper_ft.config.data import DataConfig, SourceConfig, WeightedSourceConfig
from whisper_ft.config.resume_policy import as_resumed, refuse_changes
from whisper_ft.config.training import TrainingConfig
from whisper_ft.config.tree import to_plain, with_values
from whisper_ft.data.labels.languages import code_of_name, whisper_language
from whisper_ft.data.sources import open_mixture, open_source
from whisper_ft.data.used_settings import languages_found, used_lines
from whisper_ft.runtime.errors import UsageError

FLEURS = """Afrikaans;Amharic;Arabic;Armenian;Assamese;Azerbaijani;Belarusian;Bengali;Bosnian;Bulgarian;Burmese;Catalan;
Croatian;Czech;Danish;Dutch;English;Estonian;Finnish;French;Galician;Georgian;German;Greek;Gujarati;Hausa;Hebrew;Hindi;
Hungarian;Icelandic;Indonesian;Italian;Japanese;Javanese;Kannada;Kazakh;Khmer;Korean;Lao;Latvian;Lingala;Lithuanian;
Luxembourgish;Macedonian;Malay;Malayalam;Maltese;Maori;Marathi;Mongolian;Nepali;Norwegian;Occitan;Pashto;Persian;Polish;
Portuguese;Punjabi;Romanian;Russian;Serbian;Shona;Sindhi;Slovak;Slovenian;Somali;Spanish;Swahili;Swedish;Tajik;Tamil;
Telugu;Thai;Turkish;Ukrainian;Urdu;Uzbek;Vietnamese;Welsh;Yoruba;Mandarin Chinese;Cantonese Chinese;Filipino"""
"""Names in google/fleurs of languages that Whisper has."""
LACKING = {"Kyrgyz": "ky", "Sorani-Kurdish": "ckb", "Northern-Sotho": "nso", "Oriya": "or", "Irish": "ga", "Zulu": "zu"}
SAID: dict[str, list[Any]] = {"language": ["sv", None, "be"], "task": ["Translate", None, "asr"]}


def labels(where: SourceConfig) -> list[tuple[Any, Any]]:
    source = open_source(where)
    return [(row.language, row.task) for chunk in range(len(source.rows)) for row in source.read(chunk)]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind is not kaldi])
@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"language": "pl", "task": "transcribe"}, [("pl", "transcribe")] * 3),
        (
            {"language": "pl", "task": "transcribe", "language_column": "language", "task_column": "task"},
            [("sv", "translate"), ("pl", "transcribe"), ("be", "asr")],
        ),
        ({"language": "pl"}, [("pl", "translate"), ("pl", None), ("pl", None)]),
    ],
)
def test_who_wins(kind: Any, settings: dict[str, Any], expected: list[Any], tmp_path: Path):
    if kind.__name__ == "common_voice" and "task_column" not in settings:
        expected = [(language, settings.get("task")) for language, _ in expected]  # its definition has no task
    assert labels(SourceConfig(path=str(kind(tmp_path, SAID)), **settings)) == expected


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.__name__ not in ("kaldi", "common_voice")])
def test_a_column_counts_where_the_user_says_nothing_and_lang_and_locale_never_do(kind: Any, tmp_path: Path):
    where = SourceConfig(path=str(kind(tmp_path, SAID)))
    assert labels(where) == [("sv", "translate"), (None, None), ("be", None)]
    assert languages_found([open_source(where)]) == ["sv", "be"]
    (tmp_path / "other").mkdir()
    other = SourceConfig(path=str(kind(tmp_path / "other", {"lang": ["sv"] * 3, "locale": ["pl"] * 3})))
    assert labels(other) == [(None, None)] * 3
    assert labels(with_values(other, {"language_column": "locale"})) == [("pl", None)] * 3


@pytest.mark.parametrize("kind", KINDS)
def test_a_named_column_that_is_not_there_is_refused(kind: Any, tmp_path: Path):
    with pytest.raises(UsageError, match="said"):
        open_source(SourceConfig(path=str(kind(tmp_path, SAID)), language_column="said"))


def test_utt2lang_counts_unasked_and_loses_to_the_setting(tmp_path: Path):
    where = SourceConfig(path=str(kaldi(tmp_path, {"lang": ["sv"] * 3})))
    assert labels(where) == [("sv", None)] * 3
    assert labels(with_values(where, {"language": "be"})) == [("be", None)] * 3
    assert labels(with_values(where, {"language": "be", "language_column": "lang"})) == [("sv", None)] * 3


@pytest.mark.parametrize("is_saved", [False, True])
def test_class_labels_give_their_names(is_saved: bool, tmp_path: Path):
    names = ClassLabel(names=["en", "de"])
    features = Features({"audio": Value("string"), "text": Value("string"), "language": names, "task": names})
    rows = {"audio": ["a.wav"] * 3, "text": ["a"] * 3, "language": [1, 0, -1], "task": [0, 1, 0]}
    data = Dataset.from_dict(rows, features=features)
    if is_saved:
        data.save_to_disk(tmp_path / "set")
    else:
        table = data.data.table
        audio = pa.array([{"bytes": b"RIFF", "path": None}] * 3, AUDIO)
        pq.write_table(
            table.set_column(0, "audio", audio).replace_schema_metadata(table.schema.metadata), tmp_path / "set.parquet"
        )
    path = str(tmp_path / ("set" if is_saved else "set.parquet"))
    assert labels(SourceConfig(path=path)) == [("de", None), ("en", None), (None, None)]
    assert labels(SourceConfig(path=path, language="de")) == [("de", None)] * 3


def test_a_number_without_a_name_is_refused_only_where_it_would_count(tmp_path: Path):
    audio = pa.array([{"bytes": b"RIFF", "path": None}], AUDIO)
    pq.write_table(pa.table({"audio": audio, "text": ["a"], "language": [1], "task": [2]}), tmp_path / "a.parquet")
    with pytest.raises(UsageError, match=r"--data\.language"):
        labels(SourceConfig(path=str(tmp_path)))
    assert labels(SourceConfig(path=str(tmp_path), language="be")) == [("be", None)]
    with pytest.raises(UsageError, match=r"--data\.task"):
        labels(SourceConfig(path=str(tmp_path), language="be", task_column="task"))


@pytest.mark.parametrize("name", [name.strip() for name in FLEURS.split(";")])
def test_the_names_of_fleurs_are_understood(name: str):
    assert whisper_language(code_of_name(name)) == whisper_language(name)


@pytest.mark.parametrize(("name", "code"), LACKING.items())
def test_a_language_that_whisper_lacks_is_named_with_its_code(name: str, code: str):
    assert code_of_name(name) == code
    with pytest.raises(UsageError, match=rf"\({code}\)"):
        whisper_language(name)


def test_the_lines_say_what_is_used_and_what_is_not(tmp_path: Path):
    audio = pa.array([{"bytes": b"RIFF", "path": None}] * 3, AUDIO)
    table = pa.table({"audio": audio, "text": ["a"] * 3, "language": ["sv", "be", "sv"], "task": ["asr"] * 3})
    pq.write_table(table, tmp_path / "train.parquet")
    lines = list(used_lines("data", open_source(SourceConfig(path=str(tmp_path), language="be")), None))
    assert "column language says sv for 2 of 3 rows; data.language be is used" in lines
    assert "column task says asr for 3 of 3 rows; transcribe is used" in lines
    assert [part for part in ("split train", "column text", "language be") if part not in lines[0]] == []


def test_task_and_language_of_data_count_for_sources_without_their_own(tmp_path: Path):
    path = str(KINDS[0](tmp_path, {"language": ["sv"] * 3}))
    parts = [WeightedSourceConfig(path=path), WeightedSourceConfig(path=path, language="pl", task="transcribe")]
    for sources, expected in ((parts, ["be translate", "pl transcribe"]), (parts[1:], ["pl transcribe"])):
        data = DataConfig(language="be", task="translate", sources=sources)
        mixed = open_mixture(data)
        rows = [mixed.read(chunk)[0] for chunk in range(len(sources))]
        assert [f"{row.language} {row.task}" for row in rows] == expected
        assert data.tasks == [label.split()[1] for label in expected]


def before_the_settings(config: TrainingConfig) -> dict[str, Any]:
    """A configuration as a checkpoint held it before these settings existed."""
    plain = to_plain(config)
    for section in (plain["data"], *plain["data"]["sources"]):
        for name in ("reading", "language_column", "task_column"):
            del section[name]
        section["task"] = section["task"] or "transcribe"
    return plain


def test_a_run_of_before_reads_as_it_read_then(tmp_path: Path):
    folder = tmp_path / "set"
    folder.mkdir()
    path = KINDS[0](folder, {"language": ["sv", None, "be"], "task": ["translate", None, None]})
    path.rename(folder / "train.parquet")
    given = {"data.path": str(folder), "data.split": "test", "data.language": "pl"}
    config = with_values(TrainingConfig(), given)
    with pytest.raises(UsageError, match="test"):
        open_mixture(config.data)
    resumed = as_resumed(config, given, before_the_settings(config))
    refuse_changes(before_the_settings(config), resumed)
    rows = open_mixture(resumed.data).read(0)
    assert [(row.language, row.task) for row in rows] == [("sv", "translate"), (None, None), ("be", None)]
    again = as_resumed(config, given, to_plain(resumed))
    assert again == resumed, "a second resume keeps the rules of the first"
    refuse_changes(to_plain(resumed), again)


@pytest.mark.long
def test_an_evaluation_of_several_languages_needs_no_language(micro_whisper: Path, corpus: Path, tmp_path: Path):
    table = pq.read_table(corpus / "test")
    languages = pa.array([*["be", "sv"] * 5, "be", None])
    pq.write_table(table.append_column("language", languages), tmp_path / "test.parquet")
    arguments = ["--model", str(micro_whisper), "--data.path", str(tmp_path / "test.parquet")]
    ended = run("evaluate.py", *arguments, "--decoding.max_new_tokens", "4", "--out", str(tmp_path / "out"))
    assert ended.code == 0, ended.err
    rows = [json.loads(line) for line in (tmp_path / "out/predictions.jsonl").read_text("utf-8").splitlines()]
    assert [row["language"] for row in rows][:2] == ["be", "sv"]
    assert rows[-1]["problem"] == "unknown_language"
