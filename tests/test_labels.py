"""Label tokens: a transcript is text and nothing else, and a row that says nonsense is one unusable row."""

import pickle
import re
from pathlib import Path
from typing import Any

import pytest
from transformers import WhisperProcessor
from transformers.models.whisper.tokenization_whisper import LANGUAGES

from normalizers import CODES, get_normalizer
from whisper_ft.data.labels.languages import whisper_language
from whisper_ft.data.labels.rewrite import LabelNormalizer
from whisper_ft.data.labels.timestamp_tokens import TIMESTAMP
from whisper_ft.data.labels.tokens import LabelEncoder
from whisper_ft.data.types import RejectedError
from whisper_ft.models.whisper import load_whisper
from whisper_ft.runtime.errors import UsageError


@pytest.fixture(scope="module")
def parts(micro_whisper: Path) -> tuple[Any, WhisperProcessor]:
    return load_whisper(str(micro_whisper))


def encoder(parts: tuple[Any, Any], language: str | None = "be", task: str = "transcribe") -> LabelEncoder:
    model, processor = parts
    return LabelEncoder.of(model, processor.tokenizer, language, task)


@pytest.mark.parametrize(
    "text",
    [
        "<|endoftext|>",
        "<|startoftranscript|>",
        "да <|startoftranscript|><|be|><|transcribe|> так",
        "<|notimestamps|> <|nospeech|>",
        "<|0.00|> ад нуля да <|2.00|>",
        "<<|1.00|>> <|1.00|",
        "просты тэкст, 42 € — 猫!",
    ],
)
def test_a_transcript_that_looks_like_special_tokens_is_plain_text(parts: tuple[Any, Any], text: str):
    tokenizer = parts[1].tokenizer
    tokens = encoder(parts)(text)
    prompt, body, end = tokens[:4], tokens[4:-1], tokens[-1]
    assert prompt == encoder(parts).prompt()
    assert end == tokenizer.eos_token_id
    special = set(tokenizer.all_special_ids) | {
        number for token, number in tokenizer.get_vocab().items() if TIMESTAMP.fullmatch(token)
    }
    assert not special & set(body)
    # Of the backend: Whisper's own decode takes what looks like a timestamp out of the finished text.
    assert tokenizer.backend_tokenizer.decode(body, skip_special_tokens=True).removeprefix(" ") == text


def test_a_plain_transcript_has_the_tokens_that_the_tokenizer_gives(parts: tuple[Any, Any]):
    text = "Раз’яднаць сям'ю, < | > 12.50 |> 猫"
    assert encoder(parts)(text)[4:-1] == parts[1].tokenizer.encode(f" {text}", add_special_tokens=False)


def test_a_token_that_a_user_added_to_the_vocabulary_is_used(micro_whisper: Path):
    parts = load_whisper(str(micro_whisper))
    parts[1].tokenizer.add_tokens(["<|смех|>"])
    added = parts[1].tokenizer.convert_tokens_to_ids("<|смех|>")
    assert added in encoder(parts)("ха <|смех|> ха")


NONSENSE = [
    ({"language": "xx"}, "unknown_language"),
    ({"language": "Kyrgyz"}, "unknown_language"),
    ({"language": 7}, "unknown_language"),
    ({"language": ["be", "sv"]}, "unknown_language"),
    ({"language": float("nan")}, "unknown_language"),
    ({"task": "sing"}, "unknown_task"),
    ({"task": 3}, "unknown_task"),
    ({"task": ["transcribe"]}, "unknown_task"),
    ({"language": "xx", "task": "sing"}, "unknown_language"),
]


@pytest.mark.parametrize(("row", "reason"), NONSENSE)
def test_a_row_of_an_unknown_language_or_task_is_unusable(parts: tuple[Any, Any], row: dict[str, Any], reason: str):
    with pytest.raises(RejectedError) as raised:
        encoder(parts)("тэкст", **row)
    assert raised.value.reason == reason


@pytest.mark.parametrize(("row", "reason"), NONSENSE)
def test_evaluation_takes_the_default_for_what_is_unknown(parts: tuple[Any, Any], row: dict[str, Any], reason: str):
    encode = encoder(parts, "sv", "translate")
    given = {"language": "sv", "task": "translate"} | row
    assert encode.prompt_or_default(given["language"], given["task"]) == (encode.prompt("sv", "translate"), reason)


def test_what_is_known_is_kept_when_the_other_is_unknown(parts: tuple[Any, Any]):
    encode = encoder(parts)
    assert encode.prompt_or_default("sv", "sing")[0] == encode.prompt("sv", "transcribe")
    assert encode.prompt_or_default("xx", "translate")[0] == encode.prompt("be", "translate")
    assert encode.prompt_or_default(None, " ") == (encode.prompt(), None)


@pytest.mark.parametrize("text", [None, 42, float("nan"), ["а"], b"bytes", "half \ud83d of a pair"])
def test_a_transcript_that_is_not_a_text_is_unusable(parts: tuple[Any, Any], text: Any):
    with pytest.raises(RejectedError) as raised:
        encoder(parts)(text)
    assert raised.value.reason == "bad_label"


@pytest.mark.parametrize(
    ("language", "task", "told"),
    [("xx", "transcribe", "not one of Whisper's"), ("be", "sing", "this model knows"), (None, "transcribe", "missing")],
)
def test_a_default_that_the_model_does_not_know_is_refused_at_once(
    parts: tuple[Any, Any], language: str | None, task: str, told: str
):
    with pytest.raises(UsageError, match=told):
        encoder(parts, language, task)


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ("<|sv|>", "sv"),  # as in older generation configs
        ("be_BY", "be"),
        ("be_by", "be"),  # FLEURS
        ("be-tarask", "be"),
        ("bel_Cyrl", "be"),
        ("be_BY.UTF-8", "be"),
        ("sr-Latn-RS", "sr"),
        ("ca_ES@valencia", "ca"),
        ("zh-CN", "zh"),
        ("cmn_hans_cn", "zh"),
        ("yue_hant_hk", "yue"),
        ("Cantonese", "yue"),
        ("jv-ID", "jw"),  # the code that Whisper has for Javanese was withdrawn in 1989
        ("nb-NO", "no"),
        ("nn-NO", "nn"),
        ("fil_ph", "tl"),
        ("iw", "he"),
        ("Haitian_Creole", "ht"),
        ("haitian creole", "ht"),
        ("  Belarusian ", "be"),
    ],
)
def test_a_language_may_be_given_in_many_ways(given: str, code: str):
    assert whisper_language(given) == code


@pytest.mark.parametrize(
    ("given", "hint"),
    [
        ("Belorussian", "did you mean Belarusian?"),
        ("German (Swiss)", "did you mean German?"),
        ("Kurdish", ""),
        ("Chinese Mandarin", "did you mean Chinese?"),
        ("Kyrgyz", "(ky)"),
        ("nan-tw", ""),
        ("ckb", ""),
        ("C.UTF-8", ""),
        ("", ""),
    ],
)
def test_a_language_that_is_none_of_whispers_is_refused_with_the_way_out(given: str, hint: str):
    with pytest.raises(UsageError, match=f"language {re.escape(repr(given))}") as refused:
        whisper_language(given)
    assert hint in str(refused.value)
    assert "\n" not in str(refused.value)


def test_the_normalisers_call_every_language_as_the_labels_do():
    for given, code in CODES.items():
        if code in LANGUAGES:
            assert whisper_language(given) == code, given
        else:
            with pytest.raises(UsageError):
                whisper_language(given)


def test_a_label_is_rewritten_by_the_normaliser_of_the_rows_own_language(parts: tuple[Any, Any]):
    model, processor = parts
    rewriting = LabelNormalizer("golden", get_normalizer)
    encode = LabelEncoder.of(model, processor.tokenizer, "be", "transcribe", pickle.loads(pickle.dumps(rewriting)))
    assert encode("Раз’яднаць, СЯМ’Ю!") == encoder(parts)("раз'яднаць сям'ю")
    assert encode("EU:s mål", "sv") == encoder(parts)("eu:s mål", "sv"), "in Swedish a colon is spelling"
    with pytest.raises(RejectedError) as emptied:
        encode("— ?!")
    assert emptied.value.reason == "empty_label"
    assert "data.normalizer golden leaves nothing of '— ?!'" in emptied.value.detail


def test_what_is_rewritten_is_told_with_examples():
    rows = [("Так!", "be"), ("так", None), ("?", "be"), (None, "be")]
    assert LabelNormalizer("golden", get_normalizer).examples(rows) == [
        "data.normalizer golden changes 2 of the first 3 transcripts; 1 of them become empty",
        "  'Так!' is learned as 'так'",
        "  '?' is learned as ''",
    ]
