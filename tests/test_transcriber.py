"""Transcription with any model from the Hub, and of any row, including rows with unusable language or task."""

import json
import logging
import shutil
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers import WhisperForConditionalGeneration

from whisper_ft.config.evaluation import DecodingConfig
from whisper_ft.data.labels.tokens import LabelEncoder
from whisper_ft.data.types import Row
from whisper_ft.decoding.long_form import AudioWindow
from whisper_ft.decoding.transcribe import AHEAD, transcribe
from whisper_ft.decoding.transcriber import Transcriber
from whisper_ft.models.export.hf import config_files, export
from whisper_ft.models.whisper import load_whisper
from whisper_ft.runtime.collectives import Collectives
from whisper_ft.scoring.scores import Prediction

NEW_TOKENS = 6


def noise(model: Any, index: int, problem: str | None = None, **fields: Any) -> AudioWindow:
    """A window of noise."""
    frames = 2 * model.config.max_source_positions
    features = torch.rand(model.config.num_mel_bins, frames, generator=torch.Generator().manual_seed(index))
    row = Row(**{"id": f"row-{index}", "audio": b"", "text": "тэкст"} | fields)
    return AudioWindow(index, row, features, 1.0, problem)


def transcriber(model: Any, processor: Any, language: str | None = "be", beams: int = 1) -> Transcriber:
    tokenizer = processor.tokenizer
    encode = LabelEncoder.of(
        model, tokenizer, language if model.generation_config.is_multilingual else None, "transcribe"
    )
    return Transcriber(
        model.eval(), tokenizer, encode, DecodingConfig(max_new_tokens=NEW_TOKENS, num_beams=beams), "fp32"
    )


def transcribed(transcriber: Transcriber, *windows: AudioWindow) -> list[Prediction]:
    return transcribe(transcriber, windows, 16, len(windows), Collectives())


def write_always(model: Any, token: int) -> None:
    """Change the weights so that the model writes one token forever."""
    with torch.no_grad():
        norm, embeddings = model.model.decoder.layer_norm, model.proj_out.weight
        norm.weight.zero_()
        norm.bias.copy_(torch.nn.functional.normalize(torch.ones_like(norm.bias), dim=0))
        embeddings[token] = 100 * norm.bias


def with_generation_config(micro_whisper: Path, folder: Path, **fields: Any) -> Path:
    """Copy of the micro model with other fields in its generation config; None removes a field."""
    shutil.copytree(micro_whisper, folder, dirs_exist_ok=True)
    content = json.loads((folder / "generation_config.json").read_text()) | fields
    content = {key: value for key, value in content.items() if value is not None}
    (folder / "generation_config.json").write_text(json.dumps(content))
    return folder


@pytest.fixture
def complaints() -> Iterator[list[str]]:
    """Warnings and errors that transformers logs during the test; Python's warnings are raised."""
    messages: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]
    logger, level = logging.getLogger("transformers"), transformers.logging.get_verbosity()
    logger.addHandler(handler)
    transformers.logging.set_verbosity_warning()
    logging.Logger.warning_once.cache_clear()  # type: ignore[attr-defined]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield messages
    transformers.logging.set_verbosity(level)
    logger.removeHandler(handler)


ENGLISH_ONLY = {"is_multilingual": False, "lang_to_id": None, "task_to_id": None}

AWKWARD: dict[str, dict[str, Any]] = {
    "temperature without sampling": {"temperature": 0.7},
    "several temperatures": {"temperature": [0.0, 0.2, 0.4]},
    "sampling": {"do_sample": True, "temperature": 1.3, "top_k": 10, "top_p": 0.9},
    "early stopping without beams": {"early_stopping": True},
    "length penalty without beams": {"length_penalty": 2.0},
    "beams and groups": {"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 0.5},
    "thresholds": {"no_speech_threshold": 0.6, "logprob_threshold": -1.0, "compression_ratio_threshold": 1.35},
    "no speech threshold alone": {"no_speech_threshold": 0.6},
    "forced decoder ids": {"forced_decoder_ids": [[1, None], [2, 615]]},
    "no suppression": {"suppress_tokens": [], "begin_suppress_tokens": []},
    "suppression": {"suppress_tokens": [1, 2, 7, 10**6], "begin_suppress_tokens": [220]},
    "end token in a list": {"eos_token_id": [512]},
    "timestamps": {"return_timestamps": True},
    "no new tokens": {"max_new_tokens": 0},
    "nonsense for transformers": {"cache_implementation": "?", "early_stopping": "x", "watermarking_config": 3},
    "marked as derived": {"_from_model_config": True, "transformers_version": "4.27.0.dev0"},
    "language as a token": {"language": "<|sv|>", "task": "transcribe"},
    "nothing but ids": {"lang_to_id": None, "task_to_id": None, "is_multilingual": None, "max_length": None},
    "English only": ENGLISH_ONLY,
    "English only with maps": {"is_multilingual": False, "language": "en", "task": "transcribe"},
}


@pytest.mark.long
@pytest.mark.parametrize("fields", AWKWARD.values(), ids=AWKWARD.keys())
def test_a_model_with_an_awkward_generation_config_decodes_and_is_exported(
    tmp_path: Path, micro_whisper: Path, complaints: list[str], fields: dict[str, Any]
):
    assert json.loads((micro_whisper / "generation_config.json").read_text())["eos_token_id"] == 512
    model, processor = load_whisper(str(with_generation_config(micro_whisper, tmp_path / "old", **fields)))
    before = transcribed(transcriber(model, processor), noise(model, 0))
    export(model, config_files(model, processor), tmp_path / "new", "")
    again, _ = load_whisper(str(tmp_path / "new"))
    assert again.generation_config.to_dict() == model.generation_config.to_dict()
    raw = WhisperForConditionalGeneration.from_pretrained(tmp_path / "new")
    assert raw.generation_config.to_dict() | {"transformers_version": None} == (
        model.generation_config.to_dict() | {"transformers_version": None}
    )
    assert transcribed(transcriber(again, processor), noise(model, 0)) == before
    assert complaints == []


def test_an_english_only_model_is_prompted_without_language_and_task(tmp_path: Path, micro_whisper: Path):
    """The tokenizers of such models contain language tokens, too."""
    folder = with_generation_config(micro_whisper, tmp_path / "old", **ENGLISH_ONLY)
    for name in (folder, tmp_path / "new"):
        model, processor = load_whisper(str(name))
        config = model.generation_config
        encode = LabelEncoder(processor.tokenizer, config, 128, None, "transcribe")
        assert encode.prompt() == encode.prompt("be", "sing") == encode("a")[:2]
        assert encode.prompt() == [config.decoder_start_token_id, config.no_timestamps_token_id]
        assert config.is_multilingual is False
        assert not {"lang_to_id", "task_to_id", "language", "task"} & config.to_dict().keys()
        windows = [noise(model, 0), noise(model, 1, language="xx", task="sing")]
        predictions = transcribe(transcriber(model, processor, None), windows, 2, 2, Collectives())
        assert [prediction.problem for prediction in predictions] == [None, None]
        model.generate(windows[0].features[None], max_new_tokens=2)  # as a user would, with nothing given
        export(model, config_files(model, processor), tmp_path / "new", "")


def test_an_evaluation_that_ends_early_reads_no_further(micro_whisper: Path):
    """The exception is kept for all ranks, with the frames that it refers to, but the reading thread has ended."""
    model, processor = load_whisper(str(micro_whisper))
    read, threads = [], set(threading.enumerate())

    def windows() -> Iterator[AudioWindow]:
        for index in range(1_000):
            read.append(index)
            yield noise(model, index)

    def stop(prediction: Prediction) -> None:
        raise InterruptedError(prediction.id)

    with pytest.raises(InterruptedError, match="row-0") as kept:
        transcribe(transcriber(model, processor), windows(), 1, 1_000, Collectives(), stop)
    assert kept.tb is not None
    assert not set(threading.enumerate()) - threads
    assert len(read) <= 1 + AHEAD + 1


@pytest.mark.parametrize("beams", [1, 3])
def test_transcripts_are_those_of_whispers_own_generate(micro_whisper: Path, beams: int):
    model, processor = load_whisper(str(micro_whisper))
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(1)
        for name, weight in model.named_parameters():  # large enough for a different token at each position
            if weight.dim() > 1:
                weight.mul_(8 if "layers" in name else 3)
    windows = [noise(model, index) for index in range(4)]
    suppressed = range(model.generation_config.no_timestamps_token_id + 1, model.config.vocab_size)
    model.generation_config.suppress_tokens = list(suppressed)
    own = model.generate(
        torch.stack([window.features for window in windows]),
        language="be",
        task="transcribe",
        max_new_tokens=NEW_TOKENS,
        num_beams=beams,
    )
    model.generation_config.suppress_tokens = None
    ours = transcribed(transcriber(model, processor, beams=beams), *windows)
    assert [prediction.hyp for prediction in ours] == [
        text.strip() for text in processor.batch_decode(own, skip_special_tokens=True)
    ]
    assert any(prediction.hyp for prediction in ours)


def test_a_model_that_ends_at_once_gives_an_empty_transcript_below_the_limit(micro_whisper: Path):
    model, processor = load_whisper(str(micro_whisper))
    model.generation_config.begin_suppress_tokens = None
    write_always(model, processor.tokenizer.eos_token_id)
    [prediction] = transcribed(transcriber(model, processor), noise(model, 0))
    assert (prediction.hyp, prediction.hyp_tokens, prediction.hit_token_limit) == ("", 0, False)


def test_tokens_added_by_users_are_written_as_often_as_the_model_chooses_them(micro_whisper: Path):
    """They follow the timestamps, and Whisper's own `generate` takes two in a row for the end of a segment."""
    model, processor = load_whisper(str(micro_whisper))
    processor.tokenizer.add_tokens(["ўў"])
    model.resize_token_embeddings(len(processor.tokenizer))
    write_always(model, processor.tokenizer.convert_tokens_to_ids("ўў"))
    [prediction] = transcribed(transcriber(model, processor), noise(model, 0))
    assert prediction.hyp == "ўў" * NEW_TOKENS
    assert prediction.hit_token_limit


@pytest.mark.parametrize("time", ["<|0.00|>", "<|1.00|>", "<|5.00|>"])
def test_timestamps_are_never_transcribed(micro_whisper: Path, time: str):
    model, processor = load_whisper(str(micro_whisper))
    write_always(model, processor.tokenizer.convert_tokens_to_ids(time))
    [prediction] = transcribed(transcriber(model, processor), noise(model, 0))
    assert prediction.hyp, "a transcript of timestamps only would be empty"


def test_rows_with_unusable_fields_are_transcribed_with_defaults(micro_whisper: Path):
    model, processor = load_whisper(str(micro_whisper))
    fields: list[dict[str, Any]] = [
        {},
        {"language": "xx"},
        {"language": ["be"]},
        {"task": "sing"},
        {"text": None},
        {"language": "xx", "problem": "too_long"},
        {"language": "sv"},
        {"language": "be-BY"},
    ]
    windows = [noise(model, index, **row) for index, row in enumerate(fields)]
    same_sound = [AudioWindow(w.index, w.row, windows[0].features, 1.0, w.problem) for w in windows]
    rows = transcribe(transcriber(model, processor), same_sound, 3, len(fields), Collectives())
    assert [prediction.problem for prediction in rows[:4]] == [None, *["unknown_language"] * 2, "unknown_task"]
    assert [prediction.problem for prediction in rows[4:]] == ["bad_label", "too_long", None, None]
    assert [prediction.id for prediction in rows] == [f"row-{index}" for index in range(len(fields))]
    assert len({prediction.hyp for prediction in rows[:6]}) == 1
    assert [prediction.language for prediction in rows] == ["be", "xx", "be", "be", "be", "xx", "sv", "be-BY"]
    assert all(isinstance(value, Prediction) and isinstance(value.ref, str) for value in rows)
