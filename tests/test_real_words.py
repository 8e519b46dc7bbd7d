"""Confidence and times of words on OpenAI's own weights and real speech: those of the package openai-whisper.

REAL_MODELS=DIR REAL_CORPUS=DIR .venv/bin/python -m pytest -m real -s tests/test_real_words.py
"""

import statistics
from typing import Any

import numpy as np
import pytest
import torch

from tests.test_real_weights import Clip, clips_for, pytestmark, whisper
from whisper_ft.config.evaluation import DecodingConfig
from whisper_ft.data.audio.log_mel import LogMel, pad_windows
from whisper_ft.data.labels.tokens import LabelEncoder
from whisper_ft.data.types import Row
from whisper_ft.decoding.long_form import AudioWindow
from whisper_ft.decoding.transcriber import Transcriber
from whisper_ft.decoding.window_transcript import WindowTranscript
from whisper_ft.models.export.openai_layout import dimensions, openai_tensors
from whisper_ft.models.whisper import LoadedWhisper

__all__ = ["pytestmark", "whisper"]  # marks and fixture of this file, too


def theirs_of(loaded: LoadedWhisper) -> Any:
    """The model in OpenAI's own implementation, with the alignment heads of its generation config."""
    model = pytest.importorskip("whisper.model")
    dims = model.ModelDimensions(**dimensions(loaded.model.config))
    result = model.Whisper(dims).eval()
    result.load_state_dict(openai_tensors(loaded.model, torch.float32))
    mask = torch.zeros(dims.n_text_layer, dims.n_text_head, dtype=torch.bool)
    mask[tuple(zip(*loaded.model.generation_config.alignment_heads, strict=True))] = True
    result.register_buffer("alignment_heads", mask.to_sparse(), persistent=False)
    return result


def ours_of(loaded: LoadedWhisper, clip: Clip, **settings: Any) -> tuple[WindowTranscript, torch.Tensor]:
    """Our transcript of a clip with its words, and the model's input [M, T]."""
    model, processor = loaded
    encode = LabelEncoder.of(model, processor.tokenizer, clip.language, "transcribe")
    decoding = DecodingConfig(**({"max_new_tokens": 224} | settings))  # the limit of openai-whisper
    transcriber = Transcriber(model, processor.tokenizer, encode, decoding, "fp32", words=True)
    mel = LogMel(processor.feature_extractor)(clip.waveform)
    window = AudioWindow(0, Row("a", b"", ""), mel, len(clip.waveform) / 16_000)
    [part] = transcriber.generate([window], transcriber.prompt(window))
    return part, pad_windows([mel], 2 * model.config.max_source_positions)[0]


@pytest.mark.parametrize("timestamps", [False, True])
def test_confidence_is_that_of_openai_whisper(whisper: tuple[str, LoadedWhisper], timestamps: bool):
    size, loaded = whisper
    decoding = pytest.importorskip("whisper.decoding")
    theirs, count, differences = theirs_of(loaded), 0, []
    for clip in clips_for(size):
        part, mel = ours_of(loaded, clip, timestamps=timestamps)
        options = decoding.DecodingOptions(
            language=clip.language, without_timestamps=not timestamps, fp16=False, sample_len=224
        )
        result = decoding.decode(theirs, mel, options)
        if result.tokens != part.ids:
            continue  # nearly even tokens
        count += 1
        differences.append(abs(result.avg_logprob - part.confidence.avg_logprob))
        assert part.confidence.no_speech_prob == pytest.approx(result.no_speech_prob, abs=1e-4)
        assert part.confidence.compression_ratio == result.compression_ratio
        assert part.text == result.text
    print(f"\n{size}: {count} of {len(clips_for(size))} clips equal, log-probabilities within {max(differences):.1e}")
    assert count >= 0.9 * len(clips_for(size))
    # Without timestamps, our decoding also refuses them, which OpenAI's leaves at a small probability.
    assert max(differences) < (1e-3 if timestamps else 1e-2)


def test_words_begin_when_those_of_openai_whisper_do(whisper: tuple[str, LoadedWhisper]):
    size, loaded = whisper
    pytest.importorskip("numba")
    timing, tokenizers = pytest.importorskip("whisper.timing"), pytest.importorskip("whisper.tokenizer")
    theirs = theirs_of(loaded)
    starts, ends, probabilities, words = [], [], [], 0
    for clip in clips_for(size):
        part, mel = ours_of(loaded, clip)
        if part.hit_limit or not part.words:
            continue
        seconds = len(clip.waveform) / 16_000
        tokenizer = tokenizers.get_tokenizer(theirs.is_multilingual, num_languages=99, language=clip.language)
        segment = {"seek": 0, "start": 0.0, "end": seconds, "tokens": part.ids}
        timing.add_word_timestamps(
            segments=[segment], model=theirs, tokenizer=tokenizer, mel=mel, num_frames=int(seconds * 100),
            last_speech_timestamp=0.0,
        )  # fmt: skip
        expected = joined_at_spaces(segment["words"])
        assert [word.text for word in part.words] == [word["word"] for word in expected]
        starts += [abs(a.start - b["start"]) for a, b in zip(part.words, expected, strict=True)]
        ends += [abs(a.end - b["end"]) for a, b in zip(part.words, expected, strict=True)]
        probabilities += [abs(a.probability - b["probability"]) for a, b in zip(part.words, expected, strict=True)]
        words += len(part.words)
    print(
        f"\n{size}: {words} words, median difference of starts {statistics.median(starts):.3f} s, of ends "
        f"{statistics.median(ends):.3f} s; 95 % {np.quantile(starts, 0.95):.2f} s and {np.quantile(ends, 0.95):.2f} s; "
        f"median difference of probabilities {statistics.median(probabilities):.1e}"
    )
    assert statistics.median(starts) <= 0.1
    assert statistics.median(ends) <= 0.1
    assert statistics.median(probabilities) < 0.01


def joined_at_spaces(words: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Words of openai-whisper, which splits `well-known` in two, with their parts joined."""
    joined: list[dict[str, Any]] = []
    for word in words:
        if joined and not word["word"].startswith(" "):
            joined[-1] = joined[-1] | {"word": joined[-1]["word"] + word["word"], "end": word["end"]}
        else:
            joined.append(word)
    return joined
