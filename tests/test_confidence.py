"""Confidence: log-probabilities, no speech and compression are those of OpenAI's definitions, in any batch."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers.generation import WhisperTimeStampLogitsProcessor

from normalizers import get_normalizer
from tests.openai_tokenizer import needs_openai, reference
from tests.wild_model import noise, wild
from whisper_ft.config.evaluation import DecodingConfig
from whisper_ft.data.labels.tokens import LabelEncoder
from whisper_ft.decoding.confidence import Thresholds, TranscriptConfidence, compression_ratio
from whisper_ft.decoding.greedy import Decoded
from whisper_ft.decoding.long_form import AudioWindow
from whisper_ft.decoding.transcribe import transcribe
from whisper_ft.decoding.transcriber import Transcriber
from whisper_ft.decoding.window_transcript import WindowTranscript
from whisper_ft.runtime.collectives import Collectives
from whisper_ft.runtime.errors import DataError, UsageError
from whisper_ft.scoring.confidence_figures import FIGURES, utterance_confidence
from whisper_ft.scoring.predictions import read_predictions
from whisper_ft.scoring.scores import Prediction, score

TOKENS = 12


@pytest.fixture(scope="module")
def micro(micro_whisper: Path) -> tuple[Any, Any]:
    return wild(micro_whisper)


def transcriber(micro: tuple[Any, Any], **settings: Any) -> Transcriber:
    model, processor = micro
    encode = LabelEncoder.of(model, processor.tokenizer, "be", "transcribe")
    return Transcriber(
        model, processor.tokenizer, encode, DecodingConfig(**({"max_new_tokens": TOKENS} | settings)), "fp32"
    )


def decoded(micro: tuple[Any, Any], windows: list[AudioWindow], **settings: Any) -> list[WindowTranscript]:
    decoder = transcriber(micro, **settings)
    return decoder.generate(windows, decoder.prompt(windows[0]))


@given(st.text(max_size=300))
@needs_openai
def test_the_compression_ratio_is_that_of_openai(text: str):
    assert compression_ratio(text) == reference("utils").compression_ratio(text)


@torch.inference_mode()
def expected(micro: tuple[Any, Any], window: AudioWindow, prompt: list[int], tokens: list[int]) -> tuple[float, float]:
    """Mean log-probability and probability of no speech, from one pass of transformers' own model."""
    model, processor = micro
    settings, end = model.generation_config, processor.tokenizer.eos_token_id
    first_time, count = settings.no_timestamps_token_id + 1, len(prompt)
    has_times = prompt[-1] != settings.no_timestamps_token_id
    logits = model(window.features[None], decoder_input_ids=torch.tensor([[*prompt, *tokens]])).logits[0].double()
    no_speech = logits[prompt.index(settings.decoder_start_token_id)].softmax(-1)[
        processor.tokenizer.convert_tokens_to_ids("<|nospeech|>")
    ]
    rules = WhisperTimeStampLogitsProcessor(settings, begin_index=count)
    total = 0.0
    for place, token in enumerate([*tokens, end][:TOKENS]):
        row = logits[count - 1 + place].clone()
        row[list(settings.begin_suppress_tokens) if place == 0 else []] = -torch.inf
        if has_times:
            [row] = rules(torch.tensor([[*prompt, *tokens[:place]]]), row[None])
        else:
            row[first_time:] = -torch.inf
        total += float(row.log_softmax(-1)[token])
    return total / (len(tokens) + 1), float(no_speech)


@pytest.mark.parametrize("timestamps", [False, True])
@pytest.mark.parametrize("beams", [1, 3])
def test_the_figures_are_those_of_a_pass_over_the_transcript(micro: tuple[Any, Any], beams: int, timestamps: bool):
    windows = [noise(micro[0], index) for index in range(3)]
    prompt = transcriber(micro, timestamps=timestamps).prompt(windows[0])
    for window, part in zip(windows, decoded(micro, windows, num_beams=beams, timestamps=timestamps), strict=True):
        logprob, no_speech = expected(micro, window, prompt, part.ids)
        assert part.confidence.avg_logprob == pytest.approx(logprob, abs=1e-3)
        assert part.confidence.no_speech_prob == pytest.approx(no_speech, rel=1e-3)
        assert part.confidence.compression_ratio == compression_ratio(part.text)
        assert part.confidence.temperature == 0
        assert part.ids


def test_the_end_token_counts_in_the_mean_and_a_transcript_without_it_is_divided_alike():
    ended = TranscriptConfidence.of(Decoded([5, 6], [-1.0, -2.0, -3.0], None), "a", 0.0)
    cut = TranscriptConfidence.of(Decoded([5, 6], [-1.0, -2.0], None), "a", 0.0)
    assert (ended.avg_logprob, cut.avg_logprob) == (-2.0, -1.0)
    assert TranscriptConfidence.of(Decoded([], [-0.5], 0.9), "", 0.0) == TranscriptConfidence(-0.5, 0.9, 0.0, 0.0)


def test_the_figures_do_not_depend_on_the_batch(micro: tuple[Any, Any]):
    windows = [noise(micro[0], index) for index in range(5)]
    together = [part.confidence for part in decoded(micro, windows)]
    for window, one in zip(windows, together, strict=True):
        [alone] = decoded(micro, [window])
        assert alone.confidence.avg_logprob == pytest.approx(one.avg_logprob, abs=1e-4)
        assert alone.confidence.no_speech_prob == pytest.approx(one.no_speech_prob, rel=1e-3)


def test_a_previous_text_moves_the_start_token_and_not_the_place_of_no_speech(micro: tuple[Any, Any]):
    window = noise(micro[0], 0)
    prompt = transcriber(micro, prompt="Мінск").prompt(window)
    [part] = decoded(micro, [window], prompt="Мінск")
    assert part.confidence.no_speech_prob == pytest.approx(expected(micro, window, prompt, part.ids)[1], rel=1e-3)


def test_each_phrase_has_the_mean_of_its_own_text(micro: tuple[Any, Any]):
    model, _ = micro
    [part] = decoded(micro, [noise(model, 0)], timestamps=True, max_new_tokens=30)
    assert len(part.phrases) > 1
    assert all(math.isfinite(phrase.avg_logprob) and phrase.avg_logprob <= 0 for phrase in part.phrases)
    assert len({phrase.avg_logprob for phrase in part.phrases}) > 1


def test_a_model_without_a_no_speech_token_has_no_probability_of_it(micro_whisper: Path, tmp_path: Path):
    shutil.copytree(micro_whisper, tmp_path / "m")
    for file in (tmp_path / "m").glob("*token*.json"):
        file.write_text(file.read_text(encoding="utf-8").replace("<|nospeech|>", "<|nosound|>"), encoding="utf-8")
    without = wild(tmp_path / "m")
    [part] = decoded(without, [noise(without[0], 0)])
    assert part.confidence.record()["no_speech_prob"] is None
    assert decoded(without, [noise(without[0], 0)], temperature_fallback=[0.5])
    with pytest.raises(UsageError, match=r"^--decoding.no_speech_threshold: "):
        transcriber(without, no_speech_threshold=0.6)


@pytest.mark.parametrize(
    ("confidence", "is_silence", "is_doubtful"),
    [
        (TranscriptConfidence(-0.5, 0.1, 1.5, 0.0), False, False),
        (TranscriptConfidence(-0.5, 0.1, 2.5, 0.0), False, True),  # repeats itself
        (TranscriptConfidence(-1.5, 0.1, 1.5, 0.0), False, True),  # unlikely
        (TranscriptConfidence(-1.5, 0.7, 1.5, 0.0), True, False),
        (TranscriptConfidence(-1.5, 0.7, 2.5, 0.0), True, False),
        (TranscriptConfidence(-0.5, 0.7, 1.5, 0.0), False, False),  # a likely text is kept, whatever the probability
        (TranscriptConfidence(-1.5, None, 1.5, 0.0), False, True),
        (TranscriptConfidence(math.nan, 0.1, 1.5, 0.0), False, False),
    ],
)
def test_the_thresholds_decide_as_in_openai_whisper(
    confidence: TranscriptConfidence, is_silence: bool, is_doubtful: bool
):
    thresholds = Thresholds(no_speech=0.6, logprob=-1.0, compression_ratio=2.4)
    assert thresholds.is_silence(confidence) == is_silence
    assert thresholds.is_doubtful(confidence) == is_doubtful
    off = Thresholds(None, None, None)
    assert not off.is_silence(confidence)
    assert not off.is_doubtful(confidence)


def test_without_a_limit_of_likelihood_the_probability_of_no_speech_decides_alone():
    thresholds = Thresholds(no_speech=0.6, logprob=None, compression_ratio=2.4)
    assert thresholds.is_silence(TranscriptConfidence(-0.1, 0.7, 1.0, 0.0))


@pytest.mark.parametrize(
    ("attempts", "preferred"),
    [
        ([(-0.5, 1.0)], 0),
        ([(-1.5, 1.0), (-0.9, 1.0)], 1),  # the last is accepted
        ([(-1.5, 1.0), (-1.2, 1.0), (-3.0, 1.0)], 1),  # none is: the likeliest
        ([(-0.1, 9.0), (-1.2, 1.0), (-3.0, 1.0)], 1),  # the likeliest repeats itself
        ([(-0.3, 9.0), (-0.2, 9.0), (-0.4, 9.0)], 1),  # all repeat themselves
    ],
)
def test_the_attempt_that_is_taken(attempts: list[tuple[float, float]], preferred: int):
    thresholds = Thresholds(no_speech=None, logprob=-1.0, compression_ratio=2.4)
    figures = [TranscriptConfidence(logprob, 0.1, ratio, 0.0) for logprob, ratio in attempts]
    assert thresholds.preferred(figures) == preferred


# --- in files ---


def window_record(**figures: Any) -> dict[str, Any]:
    usual = {"begin": 0.0, "tokens": 3, "avg_logprob": -1.0, "no_speech_prob": 0.5, "compression_ratio": 1.0}
    return usual | {"temperature": 0.0, "is_speech": True} | figures


def test_the_figures_of_an_utterance_are_joined_from_its_windows():
    windows = [
        window_record(tokens=3, avg_logprob=-1.0, no_speech_prob=0.9, compression_ratio=1.5),
        window_record(tokens=7, avg_logprob=-0.5, no_speech_prob=0.2, compression_ratio=2.5, temperature=0.4),
    ]
    assert utterance_confidence(windows) == {
        "avg_logprob": round((-1.0 * 4 - 0.5 * 8) / 12, 4),
        "no_speech_prob": 0.2,
        "compression_ratio": 2.5,
        "temperature": 0.4,
    }
    assert utterance_confidence([]) == dict.fromkeys(FIGURES)
    assert utterance_confidence([window_record(avg_logprob=None)])["avg_logprob"] is None


def test_a_prediction_has_the_figures_of_its_windows_and_phrases(micro: tuple[Any, Any]):
    first = noise(micro[0], 0, seconds=7.5, number=0, windows=2)
    second = AudioWindow(0, first.row, noise(micro[0], 1).features, 7.5, None, 1, 2, begin_seconds=4.5)
    decoder = transcriber(micro, timestamps=True, max_new_tokens=20)
    [prediction] = transcribe(decoder, [first, second], 2, 1, Collectives())
    assert prediction.window_confidence
    assert [window["begin"] for window in prediction.window_confidence] == [0.0, 4.5]
    assert sum(window["tokens"] for window in prediction.window_confidence) == prediction.hyp_tokens
    assert prediction.segments
    assert len(prediction.segment_logprobs or ()) == len(prediction.segments)
    [row] = score([prediction], get_normalizer("lower")).rows
    record = json.loads(json.dumps(row.record(), allow_nan=False))
    assert {name: record[name] for name in FIGURES} == utterance_confidence(prediction.window_confidence)
    assert record["window_confidence"] == prediction.window_confidence


def test_a_model_that_has_diverged_leaves_files_that_can_be_read():
    figures = TranscriptConfidence(math.nan, math.nan, 0.0, 0.0).record()
    row = score(
        [Prediction("a", "b", "", 1.0, 0, window_confidence=[window_record(**figures)])], get_normalizer("none")
    )
    assert json.loads(json.dumps(row.rows[0].record(), allow_nan=False))["avg_logprob"] is None


def test_stored_figures_are_read_back_and_those_of_another_shape_are_refused_with_their_line(tmp_path: Path):
    kept = Prediction("a", "b", "b", 1.0, 3, window_confidence=[window_record(), window_record(begin=2.0)])
    scores = score([kept], get_normalizer("none"))
    file = tmp_path / "predictions.jsonl"
    file.write_text(json.dumps(scores.rows[0].record()) + "\n")
    assert read_predictions(file) == [kept]
    for wrong in (0.9, [0.9], [{"begin": 0.0}], [window_record(tokens="x")], [window_record(temperature=None)]):
        file.write_text(json.dumps({"id": "a", "ref": "b", "hyp": "b", "window_confidence": wrong}) + "\n")
        with pytest.raises(DataError, match=r"line 1.*window_confidence"):
            read_predictions(file)
    file.write_text(json.dumps({"id": "a", "ref": "b", "hyp": "b", "confidence": 0.9, "avg_logprob": -1}) + "\n")
    assert read_predictions(file)[0].window_confidence is None
