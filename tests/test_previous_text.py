"""Previous text: what was said before, in the same recording or by the same speaker, or the column that is named."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from normalizers import get_normalizer
from whisper_ft.config.data import SourceConfig
from whisper_ft.config.scoring import EvaluationConfig
from whisper_ft.config.training import LabelsConfig, TrainingConfig
from whisper_ft.config.tree import with_values
from whisper_ft.data.labels.previous_text import (
    MAX_CHARACTERS,
    previous_texts,
    prompt_of,
    refuse_without_previous,
    spelt_as_labels,
)
from whisper_ft.data.labels.rewrite import LabelNormalizer
from whisper_ft.data.labels.tokens import LabelEncoder
from whisper_ft.data.sources import open_source
from whisper_ft.data.types import Row
from whisper_ft.models.whisper import load_parts
from whisper_ft.runtime.errors import UsageError
from whisper_ft.scoring.unicode_text import joined

RECORDING = b"one recording"


def clip(text: str, speaker: str | None = "a", **fields: Any) -> Row:
    return Row(text, text.encode("utf-8", "surrogatepass") * 2, text, speaker=speaker, **fields)


def part(text: str, offset: float, **fields: Any) -> Row:
    return Row(text, RECORDING, text, offset=offset, **fields)


@pytest.mark.parametrize(
    ("rows", "index", "previous"),
    [
        ([clip("раз"), clip("два"), clip(" тры ")], 2, "раз два"),
        ([clip("раз")], 0, None),
        ([clip("раз", "a"), clip("два", "b"), clip("тры", "a")], 2, None),
        ([clip("раз", None), clip("два", None)], 1, None),
        ([clip("раз", language="be"), clip("два", language="pl")], 1, None),
        ([clip("раз", task="translate"), clip("два")], 1, None),
        ([clip("раз"), clip("", problem=("decode_error", "")), clip("тры")], 2, "раз"),
        ([clip("你好。"), clip("世界"), clip("再见")], 2, "你好。世界"),
        ([part("два", 2.0), part("раз", 0.0), part("тры", 5.0)], 2, "раз два"),  # in the order of the recording
        ([part("два", 2.0), part("раз", 0.0), part("тры", 5.0)], 0, "раз"),
        ([clip("раз", "a"), part("два", 0.0, speaker="a"), part("тры", 1.0, speaker="b")], 2, "два"),
        ([clip("раз", "a"), part("два", 0.0, speaker="a"), part("тры", 1.0, speaker="a")], 1, None),
        ([clip("раз"), clip("два", prompt="Мінск")], 1, "Мінск"),
        ([clip("раз"), clip("два", prompt="")], 1, None),  # the column is named, and says that there is none
        ([clip("half \ud83d"), clip("два")], 1, None),
    ],
)
def test_the_text_before_a_row(rows: list[Row], index: int, previous: str | None):
    assert joined(previous_texts(rows, index)) == (previous or "")


def test_enough_text_is_taken_and_no_more():
    rows = [clip(f"сказ{number:04}") for number in range(1000)]
    found = " ".join(previous_texts(rows, 999))
    assert found.endswith("сказ0997 сказ0998")
    assert MAX_CHARACTERS < len(found) < 2 * MAX_CHARACTERS


def test_texts_before_are_spelt_as_labels_and_those_of_a_column_as_they_are(micro_whisper: Path):
    parts = load_parts(str(micro_whisper))
    rewrite = LabelNormalizer("golden", get_normalizer)
    encode = LabelEncoder.of(parts, parts.processor.tokenizer, "be", "transcribe", rewrite)
    rows = [clip("Раз, Два!"), clip("тры")]
    assert spelt_as_labels(rows, 1, encode) == ["раз два"]
    assert spelt_as_labels([rows[0], replace(rows[1], prompt="Мінск!")], 1, encode) == ["Мінск!"]
    assert spelt_as_labels(rows, 0, encode) == []


@pytest.mark.parametrize("texts", [["раз два", "тры", "чатыры пяць шэсць"], ["ліса", "воўк " * 400, "мядзведзь"]])
def test_a_prompt_holds_the_last_texts_and_no_text_that_is_trained_after_it(micro_whisper: Path, texts: list[str]):
    parts = load_parts(str(micro_whisper))
    encode = LabelEncoder.of(parts, parts.processor.tokenizer, "be", "transcribe")
    tokens = prompt_of(texts, encode)
    assert tokens == encode.previous(joined(texts))
    assert len(tokens) <= encode.most_previous
    assert prompt_of([], encode) == []
    assert prompt_of(texts, encode, ["другі"]) == tokens
    for text in texts[1:]:
        assert prompt_of(texts, encode, [text.strip()]) == []
    is_cut = len(tokens) == encode.most_previous
    assert (prompt_of(texts, encode, [texts[0]]) == tokens) == is_cut, "a text that was cut off is not in the prompt"


def manifest(folder: Path, rows: list[dict[str, Any]]) -> SourceConfig:
    for number in range(len(rows)):
        (folder / f"{number}.wav").write_bytes(b"RIFF%d" % number)
    lines = [json.dumps({"audio": f"{number}.wav", "text": "раз", **row}) for number, row in enumerate(rows)]
    (folder / "list.jsonl").write_text("\n".join(lines) + "\n")
    return SourceConfig(path=str(folder / "list.jsonl"))


def test_a_share_of_prompts_is_refused_where_no_row_has_a_text_before_it(tmp_path: Path):
    settings = LabelsConfig(prompt_share=0.5)
    alone = open_source(manifest(tmp_path, [{"speaker": "a"}, {"speaker": "b"}]))
    with pytest.raises(UsageError, match=r"--labels\.prompt_share 0\.5: .*--data\.prompt_column") as refused:
        refuse_without_previous(settings, [alone])
    assert "\n" not in str(refused.value)
    refuse_without_previous(LabelsConfig(), [alone])
    together = open_source(manifest(tmp_path, [{"speaker": "a"}, {"speaker": "a"}]))
    refuse_without_previous(settings, [alone, together])


def test_a_column_that_is_merely_called_prompt_is_not_obeyed(tmp_path: Path):
    where = manifest(tmp_path, [{"prompt": "раз"}])
    assert open_source(where).read(0)[0].prompt is None
    assert open_source(replace(where, prompt_column="prompt")).read(0)[0].prompt == "раз"


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"data.prompt_column": "p"}, r"--data\.prompt_column p: labels\.prompt_share"),
        ({"labels.no_speech_path": "n"}, r"--labels\.no_speech_path n: labels\.no_speech_share"),
        ({"labels.timestamps_share": 1.5}, r"--labels\.timestamps_share"),
        ({"labels.prompt_share": -0.1}, r"--labels\.prompt_share"),
        ({"labels.no_speech_share": float("nan")}, r"--labels\.no_speech_share"),
    ],
)
def test_settings_without_effect_and_impossible_shares_are_refused(values: dict[str, Any], named: str):
    with pytest.raises(ValueError, match=named):
        with_values(TrainingConfig(), values)


def test_an_evaluation_has_no_column_of_previous_text():
    with pytest.raises(ValueError, match=r"--data\.prompt_column p: "):
        EvaluationConfig(data=SourceConfig(path="a", prompt_column="p"))
