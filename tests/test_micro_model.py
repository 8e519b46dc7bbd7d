"""The demo's micro Whisper: a folder like one from the Hub, whole down to the generation config."""

import hashlib
import logging
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import WhisperForConditionalGeneration, WhisperProcessor
from transformers.models.whisper.tokenization_whisper import LANGUAGES as WHISPER_LANGUAGES

from whisper_ft.cli.demo.micro_tokenizer import micro_tokenizer
from whisper_ft.cli.demo.model import Shape, write_micro_whisper
from whisper_ft.cli.demo.sentences import LANGUAGES, sentences


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("micro") / "micro-whisper"
    assert write_micro_whisper(out)
    return out


@pytest.fixture(scope="module")
def model(folder: Path) -> Any:
    return WhisperForConditionalGeneration.from_pretrained(folder).eval()


@pytest.fixture(scope="module")
def processor(folder: Path) -> Any:
    return WhisperProcessor.from_pretrained(folder)


@pytest.fixture
def complaints() -> Iterator[list[str]]:
    """Lines that transformers logs meanwhile as warnings or worse."""
    heard: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: heard.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("transformers")
    logger.addHandler(handler)
    yield heard
    logger.removeHandler(handler)


def silence(processor: Any) -> torch.Tensor:  # [1, M, T]
    return processor(np.zeros(16_000, np.float32), sampling_rate=16_000, return_tensors="pt").input_features


def test_it_loads_without_a_warning(folder: Path, complaints: list[str]):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        WhisperProcessor.from_pretrained(folder)
        _, loading = WhisperForConditionalGeneration.from_pretrained(folder, output_loading_info=True)
    assert not any(loading.values())
    assert complaints == []


def test_the_generation_config_survives_saving_and_loading_twice(model: Any, tmp_path: Path):
    before = model.generation_config.to_dict()
    model.save_pretrained(tmp_path)
    after = WhisperForConditionalGeneration.from_pretrained(tmp_path).generation_config.to_dict()
    assert after == before
    assert after["decoder_start_token_id"] == after["lang_to_id"]["<|en|>"] - 1
    assert after["bos_token_id"] == after["eos_token_id"] == after["pad_token_id"] == after["lang_to_id"]["<|en|>"] - 2
    assert after["is_multilingual"] is True
    assert after["max_length"] == model.config.max_target_positions
    assert set(after["task_to_id"]) == {"transcribe", "translate"}
    assert len(after["lang_to_id"]) == len(WHISPER_LANGUAGES)


def test_the_special_tokens_stand_in_whispers_order(model: Any, processor: Any):
    tokenizer = processor.tokenizer
    tasks = ["translate", "transcribe", "startoflm", "startofprev", "nospeech", "notimestamps"]
    names = ["endoftext", "startoftranscript", *WHISPER_LANGUAGES, *tasks, "0.00", "0.02"]
    ids = tokenizer.convert_tokens_to_ids([f"<|{name}|>" for name in names])
    assert ids == list(range(ids[0], ids[0] + len(names)))
    assert tokenizer.convert_tokens_to_ids("<|5.00|>") == len(tokenizer) - 1 == model.config.vocab_size - 1
    assert tokenizer.all_special_ids == ids[:-2]


@pytest.mark.parametrize("language", ["be", "sv"])
def test_it_generates_with_language_and_task(model: Any, processor: Any, language: str):
    config = model.generation_config
    ids = model.generate(
        silence(processor), language=language, task="transcribe", return_dict_in_generate=True, max_new_tokens=8
    )["sequences"][0]
    expected = [
        config.decoder_start_token_id,
        config.lang_to_id[f"<|{language}|>"],
        config.task_to_id["transcribe"],
        config.no_timestamps_token_id,
    ]
    assert ids[:4].tolist() == expected
    assert isinstance(processor.decode(ids, skip_special_tokens=True), str)


def test_it_detects_a_language_and_writes_timestamps(model: Any, processor: Any):
    """Both need fields of the generation config that a bare WhisperConfig does not give."""
    assert model.detect_language(silence(processor)).item() in model.generation_config.lang_to_id.values()
    model.generate(silence(processor), language="be", task="transcribe", return_timestamps=True, max_new_tokens=8)


@pytest.mark.parametrize("merges", [0, 256])
@pytest.mark.parametrize("language", LANGUAGES)
def test_labels_decode_to_the_text_and_fit_the_decoder(language: str, merges: int):
    shape = Shape(language)
    tokenizer = micro_tokenizer(language, merges, shape.window_seconds, shape.max_label_tokens)
    for text in [*sentences(language, 300, seed=2), "Раз’яднаць разʼяднаць раз'яднаць, 42 € — 猫!"]:
        ids = tokenizer(text).input_ids
        assert tokenizer.decode(ids, skip_special_tokens=True) == text
        assert len(ids) <= shape.max_label_tokens


def test_merges_make_labels_as_short_as_whispers():
    texts = sentences("be", 200, seed=0)
    tokenizer = micro_tokenizer("be", Shape.merges, 5, 128)
    words = sum(len(text.split()) for text in texts)
    tokens = sum(len(tokenizer(text, add_special_tokens=False).input_ids) for text in texts)
    assert 2 < tokens / words < 4  # the real tokenizer writes 3.6 tokens a Belarusian word


@pytest.mark.long
@pytest.mark.parametrize(("window_seconds", "mel_bins"), [(5, 80), (8, 128)])
def test_extractor_and_encoder_agree_on_the_window_and_the_mel_bins(tmp_path: Path, window_seconds: int, mel_bins: int):
    write_micro_whisper(tmp_path / "m", Shape(d_model=16, window_seconds=window_seconds, mel_bins=mel_bins))
    model = WhisperForConditionalGeneration.from_pretrained(tmp_path / "m")
    features = silence(WhisperProcessor.from_pretrained(tmp_path / "m"))
    assert features.shape == (1, mel_bins, window_seconds * 100)
    assert model.config.max_source_positions == window_seconds * 50
    start = torch.tensor([[model.config.decoder_start_token_id]])
    assert model(features, decoder_input_ids=start).logits.shape == (1, 1, model.config.vocab_size)


def test_the_same_seed_gives_the_same_files_and_leaves_the_callers_random_state_alone(tmp_path: Path):
    def digest(name: str, seed: int) -> str:
        write_micro_whisper(tmp_path / name, Shape(d_model=16, seed=seed))
        return hashlib.sha256((tmp_path / name / "model.safetensors").read_bytes()).hexdigest()

    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first, again, other = digest("a", 1), digest("b", 1), digest("c", 2)
    assert torch.equal(torch.rand(3), expected)
    assert first == again != other
    for name in ("tokenizer.json", "config.json", "generation_config.json", "processor_config.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_a_model_that_is_there_is_kept(folder: Path):
    assert not write_micro_whisper(folder)
    with pytest.raises(ValueError, match="is there already"):
        write_micro_whisper(folder, Shape(d_model=64))


def test_a_width_that_the_heads_cannot_share_is_refused():
    with pytest.raises(ValueError, match=r"--d-model must be even and divisible by the 4 heads, got 30"):
        Shape(d_model=30)


def test_importing_the_demo_loads_no_torch():
    program = (
        "import sys, whisper_ft.cli.demo.__main__; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], cwd=Path(__file__).parents[1], timeout=60).returncode == 0
