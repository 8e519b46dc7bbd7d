"""The generation config of a model: completed where its files lack fields, and reported."""

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from transformers import WhisperConfig, WhisperForConditionalGeneration, WhisperTokenizer

from tests.model_files import edited
from whisper_ft.models.export.hf import config_files, export
from whisper_ft.models.generation_config import complete_generation
from whisper_ft.models.whisper import load_whisper
from whisper_ft.runtime.errors import UsageError


def test_a_missing_generation_config_is_completed_from_the_tokenizer(tmp_path: Path, micro_whisper: Path):
    """A model built from its config saves none of Whisper's fields, and `generate` then stops after 20 tokens."""
    original, processor = load_whisper(str(micro_whisper))
    WhisperForConditionalGeneration(WhisperConfig.from_pretrained(micro_whisper)).save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    repaired = load_whisper(str(tmp_path))[0].generation_config
    for name in (
        "lang_to_id",
        "task_to_id",
        "no_timestamps_token_id",
        "decoder_start_token_id",
        "eos_token_id",
        "max_length",
    ):
        assert getattr(repaired, name) == getattr(original.generation_config, name), name


def repairs_of(folder: Path) -> list[str]:
    """Lines about completed parts that loading a folder reports."""
    lines: list[str] = []
    load_whisper(str(folder), on_repair=lines.append)
    assert all(line.startswith(f"{folder}: ") and "\n" not in line for line in lines)
    return [line.removeprefix(f"{folder}: ") for line in lines]


def test_what_a_generation_config_lacks_is_told_in_one_line(tmp_path: Path, micro_whisper: Path):
    lost = ("lang_to_id", "task_to_id", "max_length", "suppress_tokens")
    folder = edited(micro_whisper, tmp_path, "generation_config.json", lambda c: [c.pop(key, None) for key in lost])
    (line,) = repairs_of(folder)
    assert "generation_config.json lacks lang_to_id (100 languages), task_to_id, max_length;" in line
    assert repairs_of(micro_whisper) == []


def test_a_generation_config_that_is_not_there_is_told(tmp_path: Path, micro_whisper: Path):
    """The judgement is reported, too: no file says whether the model is an English-only one."""
    shutil.copytree(micro_whisper, tmp_path / "m")
    (tmp_path / "m/generation_config.json").unlink()
    (line,) = repairs_of(tmp_path / "m")
    assert re.search(r"no generation_config.json.* is_multilingual \(true\), lang_to_id \(100 languages\)", line)
    assert "eos_token_id" not in line, "config.json has it"
    exported = tmp_path / "out"
    model, processor = load_whisper(str(tmp_path / "m"))
    export(model, config_files(model, processor), exported, "")
    assert repairs_of(exported) == []


def tokenizer(end: int, *languages: str) -> WhisperTokenizer:
    """A tokenizer whose <|endoftext|> has that id."""
    tasks = ["translate", "transcribe", "notimestamps"]
    return WhisperTokenizer(
        vocab={f"t{number}": number for number in range(end)},
        merges=[],
        pad_token="<|endoftext|>",
        extra_special_tokens=[f"<|{name}|>" for name in ("startoftranscript", *languages, *tasks)],
    )


@pytest.mark.parametrize(
    ("stated", "vocabulary", "multilingual"),
    [
        ({"is_multilingual": True}, (50257, "en", "be"), True),
        ({"is_multilingual": False}, (50257, "en", "be"), False),
        ({}, (50257, "en", "be"), True),
        ({}, (50256, "en", "be"), False),  # openai/whisper-tiny.en and its kin
        ({"lang_to_id": {"<|en|>": 50258}}, (50256, "en"), True),
        ({}, (512, "be"), True),
        ({}, (512,), False),
    ],
)
def test_a_model_is_multilingual_if_it_says_so_else_by_its_vocabulary(
    stated: dict[str, Any], vocabulary: tuple[Any, ...], multilingual: bool
):
    config = WhisperConfig(vocab_size=51865)
    complete = complete_generation("m", stated, config, tokenizer(*vocabulary))
    assert complete.is_multilingual is multilingual
    assert hasattr(complete, "lang_to_id") is hasattr(complete, "task_to_id") is multilingual


def test_a_multilingual_model_without_languages_is_refused():
    with pytest.raises(UsageError, match="languages and tasks"):
        complete_generation("m", {"is_multilingual": True}, WhisperConfig(), tokenizer(512))
