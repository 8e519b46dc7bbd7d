"""Suppressed tokens: which of them labels hold, what `model.suppress` releases, and that a run keeps its decision."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from collator import SpeechCollator
from tests.conftest import Trainer
from tests.openai_tokenizer import MULTILINGUAL, Checkpoint, needs_openai, put
from whisper_ft.cli.checkpoint import main as checkpoint
from whisper_ft.cli.doctor.data_check import check_data
from whisper_ft.config.evaluation import DecodingConfig
from whisper_ft.config.parse import load_config
from whisper_ft.config.resume_policy import as_resumed
from whisper_ft.config.setting import LeadingSpace, Suppress
from whisper_ft.config.training import TrainingConfig
from whisper_ft.config.tree import to_plain
from whisper_ft.config.yaml12 import load
from whisper_ft.data.labels.tokens import LabelEncoder
from whisper_ft.data.sources import open_mixture
from whisper_ft.decoding.eval_protocol import EvalProtocol
from whisper_ft.decoding.evaluator import Evaluator
from whisper_ft.models.suppression import SuppressedCount, SuppressedTokens, fingerprint, release, released_tokens
from whisper_ft.models.whisper import ModelParts, load_parts
from whisper_ft.training.suppress_choice import ROWS, decided

NARROW: dict[str, Any] = {"d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "heads": 2}
SIGNS = {"(": 7, ")": 8, ":": 25, " (": 522, " '": 922, " -": 359}  # ids in OpenAI's multilingual vocabulary
SPACE, END = 220, 50257


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A narrow model with OpenAI's multilingual vocabulary and suppressed tokens."""
    return Checkpoint(MULTILINGUAL, **NARROW).write(tmp_path_factory.mktemp("base"))


@pytest.fixture
def parts(base: Path) -> ModelParts:
    return load_parts(str(base))


def counted(parts: ModelParts, leading_space: LeadingSpace, *texts: str) -> tuple[SuppressedTokens, SuppressedCount]:
    tokenizer, count = parts.processor.tokenizer, SuppressedCount()
    encode = LabelEncoder.of(parts, tokenizer, "lb", "transcribe", leading_space=leading_space)
    tokens = SuppressedTokens.of(parts.generation_config, tokenizer)
    for text in texts:
        count.add(tokens.among(encode.text_of(encode(text))))
    return tokens, count


@needs_openai
@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Moien, wéi geet et?", []),
        ("Zäit: 10:30", [":", ":"]),
        ("an (dat", [" ("]),
        ("(dat) :", [" (", ")"]),  # ` :` is another token, suppressed as well
        ("well-known", []),
        ("dat - an", [" -"]),
        ("ass 't net", [" '"]),
        ("d'Haus", []),
    ],
)
def test_signs_that_generation_may_not_write_are_found_in_labels(parts: ModelParts, text: str, found: list[str]):
    tokens, count = counted(parts, "auto", text)
    expected = [SIGNS[sign] for sign in found] + ([1982] if text.endswith(" :") else [])
    assert sorted(count.times.elements()) == sorted(expected)
    assert count.affected == bool(expected)
    assert len(tokens.anywhere) == 82
    assert tokens.first == {SPACE}


@needs_openai
@pytest.mark.parametrize(
    ("choice", "leading_space", "text", "suppressed", "never_first"),
    [
        ("keep", "auto", "an (dat) 日本語", 88, {SPACE, END}),
        (
            "auto",
            "auto",
            "an (dat) 日本語",
            86,
            {SPACE, END},
        ),  # ` (` and `)`; the bare space inside the text counts not
        ("auto", "always", "日本語", 88, {END}),  # the bare space is then the first token
        ("auto", "never", "日本語", 88, {SPACE, END}),
        ("none", "auto", "", 6, {SPACE, END}),
        ("none", "always", "", 6, {END}),
        ([7], "auto", "", 87, {SPACE, END}),
    ],
)
def test_a_choice_releases_text_tokens_and_never_special_ones(
    parts: ModelParts, choice: Suppress, leading_space: LeadingSpace, text: str, suppressed: int, never_first: set[int]
):
    tokens, count = counted(parts, leading_space, *([text] if text else []))
    before, tokenizer = fingerprint(parts.generation_config), parts.processor.tokenizer
    release(parts, released_tokens(decided(choice, count), tokens, tokenizer, leading_space))
    for config in (parts.generation_config, parts.config):
        assert len(config.suppress_tokens) == suppressed
        assert set(config.begin_suppress_tokens) == never_first
        assert set(tokenizer.all_special_ids) & set(config.suppress_tokens) == {50258, *range(50358, 50363)}
    changed = suppressed < 88 or SPACE not in never_first
    assert (fingerprint(parts.generation_config) != before) == changed


def test_evaluations_with_other_suppressed_tokens_are_not_compared():
    now, other = (EvalProtocol.of({"digest": "x"}, 12, DecodingConfig(), "fp32", tokens) for tokens in ("a", "b"))
    early = EvalProtocol.from_json({name: value for name, value in now.to_json().items() if name != "suppressed"})
    assert not now.matches(other)
    assert now.matches(now)
    assert early.matches(now)
    assert now.matches(early)


def test_a_run_from_before_the_setting_keeps_what_its_model_suppresses():
    saved = to_plain(TrainingConfig())
    del saved["model"]["suppress"]
    assert as_resumed(TrainingConfig(), [], saved).model.suppress == "keep"
    saved["model"]["suppress"] = [7, 8]
    assert as_resumed(TrainingConfig(), [], saved).model.suppress == [7, 8]


@pytest.fixture
def strict(train: Trainer, micro_whisper: Path) -> tuple[Trainer, list[int]]:
    """Runs of a model that suppresses the first token of the first text, one that no text holds, and a special one."""
    parts = load_parts(str(micro_whisper))
    tokenizer = parts.processor.tokenizer
    encode = LabelEncoder.of(parts, tokenizer, "be", "transcribe")
    source = open_mixture(load_config(TrainingConfig, train.arguments("run")).data)
    texts = [encode.text_of(encode(row.text)) for row in source.beginning(ROWS)]
    unused = next(token for token in range(256) if all(token not in text for text in texts))
    suppressed = [texts[0][0], unused, tokenizer.convert_tokens_to_ids("<|startofprev|>")]
    train.model = train.folder / "strict"
    shutil.copytree(micro_whisper, train.model)
    fields = json.loads((train.model / "generation_config.json").read_text())
    put(train.model / "generation_config.json", fields | {"suppress_tokens": suppressed})
    return train, suppressed


def suppressed_by(folder: Path) -> list[int]:
    return list(json.loads((folder / "generation_config.json").read_text())["suppress_tokens"])


@pytest.mark.long
def test_a_run_releases_what_its_texts_hold_and_keeps_the_decision(strict: tuple[Trainer, list[int]]):
    train, suppressed = strict
    settings = {"steps": 2, "eval__every": 2, "save__every": 1}
    ended = train.end("run", processes=2, **settings)
    assert ended.code == 0, ended.err
    assert "suppressed tokens" in ended.out
    run_dir = train.folder / "run"
    assert load((run_dir / "config.yaml").read_text(encoding="utf-8"))["model"]["suppress"] == suppressed[:1]
    for folder in ("best", "final"):
        assert suppressed_by(run_dir / folder) == suppressed[1:]
    assert checkpoint(["export", str(run_dir), "--out", str(train.folder / "out")]) == 0
    assert suppressed_by(train.folder / "out") == suppressed[1:]

    assert train.end("run", **settings, model__suppress="none").code == 2
    shutil.rmtree(run_dir / "checkpoints/step-00000002")
    again = train.end("run", **settings)  # `auto` is now the recorded decision
    assert again.code == 0, again.err
    assert "suppressed tokens" not in again.out
    assert suppressed_by(run_dir / "final") == suppressed[1:]


@pytest.mark.long
@pytest.mark.parametrize(("choice", "problems"), [("keep", 1), ("auto", 0), ("none", 0)])
def test_the_doctor_says_what_can_never_be_written(strict: tuple[Trainer, list[int]], choice: str, problems: int):
    train, suppressed = strict
    config = load_config(TrainingConfig, train.arguments("run", model__suppress=choice))
    report = check_data(config, 20, "none", lambda *_: None, SpeechCollator)
    assert len([line for line in report.problems if "never writes" in line]) == problems
    assert [line for line in report.text("suppressed tokens") if f" {suppressed[0]} " in line]


def test_the_suppressed_tokens_of_a_model_are_part_of_an_evaluation(strict: tuple[Trainer, list[int]]):
    train, suppressed = strict
    source = open_mixture(load_config(TrainingConfig, train.arguments("run")).data)
    parts = load_parts(str(train.model))
    protocols = []
    for released in ([], suppressed[:1]):
        release(parts, released)
        evaluator = Evaluator("", source, DecodingConfig(), 2, "fp32", parts.generation_config)
        protocols.append(evaluator.protocol)
    assert protocols[0].to_json() != protocols[1].to_json()
    assert not protocols[0].matches(protocols[1])


@pytest.mark.long
@pytest.mark.parametrize("given", ["sometimes", "[a]", "1.5"])
def test_another_value_is_refused_in_one_line(train: Trainer, given: str):
    ended = train.end("run", model__suppress=given)
    assert ended.code == 2
    assert len(ended.err.strip().splitlines()) == 1
    assert "model.suppress" in ended.err
    assert "auto" in ended.err
