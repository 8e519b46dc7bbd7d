"""Timestamps: the rules are those of transformers, and times count from the start of the recording."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import GenerationMixin, LogitsProcessorList, SuppressTokensLogitsProcessor
from transformers.generation import WhisperTimeStampLogitsProcessor

from tests.conftest import run
from tests.wild_model import noise, wild
from whisper_ft.config.evaluation import DecodingConfig
from whisper_ft.data.labels.tokens import LabelEncoder
from whisper_ft.decoding.long_form import AudioWindow
from whisper_ft.decoding.timestamps import TimestampRules
from whisper_ft.decoding.transcribe import transcribe
from whisper_ft.decoding.transcriber import Transcriber
from whisper_ft.models.whisper import load_whisper
from whisper_ft.runtime.collectives import Collectives
from whisper_ft.runtime.errors import UsageError

END, NO_TIMESTAMPS, FIRST, LAST = 20, 29, 30, 50  # a small vocabulary: 20 tokens of text, 9 specials, 21 timestamps


@pytest.mark.long
@given(st.data(), st.sampled_from([None, 0, 5, 99]), st.integers(0, 2**31))
def test_the_allowed_tokens_are_those_of_transformers(data: st.DataObject, most_at_begin: int | None, seed: int):
    settings = SimpleNamespace(
        no_timestamps_token_id=NO_TIMESTAMPS,
        eos_token_id=END,
        bos_token_id=END,
        max_initial_timestamp_index=most_at_begin,
    )
    theirs = WhisperTimeStampLogitsProcessor(settings, begin_index=3)  # type: ignore[arg-type]
    ours = TimestampRules(FIRST, LAST, END, NO_TIMESTAMPS, most_at_begin)
    random = torch.Generator().manual_seed(seed)
    rows: list[list[int]] = [[], []]
    for _ in range(data.draw(st.integers(1, 12))):
        logits = torch.randn(2, LAST + 1, generator=random) * 4
        allowed = ours(rows, logits)
        torch.testing.assert_close(
            allowed, theirs(torch.tensor([[1, 2, 3, *row] for row in rows]), logits), rtol=0, atol=0
        )
        possible = [[token for token in range(LAST + 1) if row[token] > -torch.inf] for row in allowed]
        rows = [[*row, data.draw(st.sampled_from(tokens or [END]))] for row, tokens in zip(rows, possible, strict=True)]


def test_phrases_lie_between_their_timestamps_and_the_last_one_may_be_open():
    rules = TimestampRules(FIRST, LAST, END, NO_TIMESTAMPS, None)
    assert rules.phrases([30, 1, 2, 35, 35, 3, 45]) == [(0.0, 0.1, [1, 2]), (0.1, 0.3, [3])]
    assert rules.phrases([32, 1, 40, 42, 2]) == [(0.04, 0.2, [1]), (0.24, None, [2])]
    assert rules.phrases([30, 35]) == rules.phrases([]) == []
    assert rules.text([30, 1, 2, 35, 35, 3, 60]) == [1, 2, 3, 60]


@pytest.mark.parametrize("beams", [1, 3])
def test_texts_and_times_are_those_of_transformers_with_its_own_rules(micro_whisper: Path, beams: int):
    model, processor = wild(micro_whisper)
    settings, tokenizer = model.generation_config, processor.tokenizer
    encode = LabelEncoder.of(model, tokenizer, "be", "transcribe")
    windows = [noise(model, index) for index in range(4)]
    prompt = encode.prompt()[:-1]
    rules = [WhisperTimeStampLogitsProcessor(settings, begin_index=len(prompt))]
    if settings.suppress_tokens:
        rules.insert(0, SuppressTokensLogitsProcessor(settings.suppress_tokens))
    tokens = GenerationMixin.generate(
        model,
        torch.stack([window.features for window in windows]),
        decoder_input_ids=torch.tensor([prompt] * len(windows)),
        logits_processor=LogitsProcessorList(rules),
        num_beams=beams,
        max_new_tokens=20,
    )
    decoding = DecodingConfig(timestamps=True, num_beams=beams, max_new_tokens=20)
    ours = transcribe(Transcriber(model, tokenizer, encode, decoding, "fp32"), windows, 4, 4, Collectives())
    first = settings.no_timestamps_token_id + 1
    for prediction, row in zip(ours, tokens[:, len(prompt) :].tolist(), strict=True):
        row = row[: row.index(tokenizer.eos_token_id)] if tokenizer.eos_token_id in row else row
        text = tokenizer.decode([token for token in row if token < first], skip_special_tokens=True).strip()
        assert prediction.hyp == text
        assert prediction.segments[0][0] == min(round((row[0] - first) * 0.02, 2), 4.0)
    assert any(prediction.hyp for prediction in ours)
    assert any(len(prediction.segments) > 1 for prediction in ours)


def test_times_in_a_long_recording_count_from_its_beginning(micro_whisper: Path):
    model, processor = wild(micro_whisper)
    encode = LabelEncoder.of(model, processor.tokenizer, "be", "transcribe")
    transcriber = Transcriber(
        model, processor.tokenizer, encode, DecodingConfig(timestamps=True, max_new_tokens=20), "fp32"
    )
    first = noise(model, 0, seconds=7.5, number=0, windows=2)
    second = AudioWindow(0, first.row, first.features, 7.5, None, 1, 2, begin_seconds=4.5)
    [alone] = transcribe(transcriber, [noise(model, 0, seconds=5.0)], 2, 1, Collectives())
    [both] = transcribe(transcriber, [first, second], 2, 1, Collectives())
    times = [(start, end) for start, end, _ in alone.segments]
    assert [(start, end) for start, end, _ in both.segments] == [
        *((min(start, 4.5), min(end, 4.5)) for start, end in times),  # a window that ends at 4.5 seconds
        *((round(min(start + 4.5, 7.5), 2), round(min(end + 4.5, 7.5), 2)) for start, end in times),
    ]


def test_a_model_without_timestamp_tokens_is_refused(micro_whisper: Path):
    model, processor = load_whisper(str(micro_whisper))
    model.generation_config.no_timestamps_token_id = model.config.vocab_size - 1
    encode = LabelEncoder.of(model, processor.tokenizer, "be", "transcribe")
    with pytest.raises(UsageError, match=r"^--decoding.timestamps: "):
        Transcriber(model, processor.tokenizer, encode, DecodingConfig(timestamps=True), "fp32")


@pytest.mark.long
def test_evaluate_writes_the_segments_of_each_utterance(micro_whisper: Path, tmp_path: Path):
    (tmp_path / "clips").mkdir()
    sound = np.random.default_rng(1).normal(0, 0.1, 16000 * 8).astype(np.float32)
    soundfile.write(tmp_path / "clips/a.wav", sound, 16000)
    (tmp_path / "clips/metadata.csv").write_text("file_name,text\na.wav,тэкст\n", encoding="utf-8")
    arguments = ["--model", str(micro_whisper), "--data.path", str(tmp_path / "clips"), "--data.language", "be"]
    ended = run(
        "evaluate.py", *arguments, "--out", str(tmp_path / "out"), "--decoding.timestamps", "true", "--device", "cpu"
    )
    assert ended.code == 0, ended.err
    row = json.loads((tmp_path / "out/predictions.jsonl").read_text(encoding="utf-8"))
    assert row["windows"] == 2
    assert row["segments"]
    starts = [start for start, _, _ in row["segments"]]
    assert starts == sorted(starts)
    assert all(0 <= start <= end <= 8.0 for start, end, _ in row["segments"])
    again = ["--predictions", str(tmp_path / "out/predictions.jsonl"), "--out", str(tmp_path / "again")]
    assert run("evaluate.py", *again).code == 0
    assert json.loads((tmp_path / "again/predictions.jsonl").read_text(encoding="utf-8")) == row
