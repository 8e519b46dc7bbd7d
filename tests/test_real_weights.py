"""Promises on OpenAI's own weights and real speech, where a machine has both.

    REAL_MODELS=DIR REAL_CORPUS=DIR .venv/bin/python -m pytest -m real -s     # -s shows the figures

REAL_MODELS holds whisper-base and whisper-tiny.en. REAL_CORPUS is a folder of parquet files with the columns audio,
sentence and language; the files named test.parquet are used, if there are any. REAL_CLIPS (12) limits the clips of each
file. Clips of languages other than English are left out for tiny.en.
"""

import io
import json
import os
import shutil
import signal
import statistics
from collections.abc import Iterator
from functools import cache
from itertools import accumulate, islice, pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
import torch

import tests.conftest
from tests.conftest import Trainer, digest, run
from tests.openai_weights import CORPUS, MODELS, SIZES, needs_speech, needs_weights
from whisper_ft.cli.doctor.start_loss import start_loss
from whisper_ft.config.evaluation import DecodingConfig
from whisper_ft.config.parse import load_config
from whisper_ft.config.training import TrainingConfig
from whisper_ft.data.audio.decode import decode
from whisper_ft.data.audio.log_mel import LogMel, pad_windows
from whisper_ft.data.labels.timestamp_tokens import timestamp_ids
from whisper_ft.data.labels.tokens import LabelEncoder
from whisper_ft.data.types import Row
from whisper_ft.decoding.greedy import GreedyDecoder
from whisper_ft.decoding.long_form import AudioWindow
from whisper_ft.decoding.transcriber import Transcriber
from whisper_ft.models.whisper import LoadedWhisper, load_whisper

CLIPS = int(os.environ.get("REAL_CLIPS", "12"))
RATE = 16_000
KNOWN = ("en", "de", "es", "fr", "it", "nl", "pt", "ru", "pl", "ja")  # languages in which base does not loop

pytestmark = [
    pytest.mark.real,
    pytest.mark.timeout(3600),
    needs_weights,
    needs_speech,
]


class Clip(NamedTuple):
    """A real utterance."""

    name: str
    waveform: np.ndarray
    text: str
    language: str


@cache
def sets(*, sentences: bool = False) -> dict[Path, list[Clip]]:
    """The first clips of each file, or the first of them that are whole sentences."""
    files = sorted(Path(CORPUS or ".").rglob("*.parquet"))
    files = [file for file in files if file.name == "test.parquet"] or files
    found = {}
    for file in files:
        rows = enumerate(pq.read_table(file, columns=["audio", "sentence", "language"]).to_pylist())
        found[file] = [
            Clip(f"{file}#{n}", decode(row["audio"]["bytes"], RATE, 30.0), row["sentence"], row["language"])
            for n, row in islice(rows, None if sentences else CLIPS)
            if not sentences or (row["sentence"][-1] in ".?!" and row["sentence"][0].isupper())
        ][:CLIPS]
    return found


def clips_for(size: str) -> list[Clip]:
    return [clip for clips in sets().values() for clip in clips if clip.language == "en" or not size.endswith(".en")]


def language_of(file: Path) -> str:
    return sets()[file][0].language


@pytest.fixture(scope="module", params=SIZES)
def whisper(request: pytest.FixtureRequest) -> tuple[str, LoadedWhisper]:
    """Name and model."""
    loaded = load_whisper(str(Path(MODELS or ".", request.param)))
    loaded.model.eval()
    return request.param, loaded


# --- transcripts ---


class Decoded(NamedTuple):
    """Tokens of a clip after the prompt, and the model's input."""

    clip: Clip
    features: torch.Tensor  # [1, M, T]
    prompt: list[int]
    tokens: list[int]


@torch.inference_mode()
def decoded(loaded: LoadedWhisper, clips: list[Clip]) -> Iterator[Decoded]:
    """Our greedy decoding of clips, eight at a time, and the same text by the transcriber of every evaluation."""
    model, processor = loaded
    tokenizer, settings = processor.tokenizer, model.generation_config
    suppressed = [*settings.suppress_tokens, *timestamp_ids(model, tokenizer)]
    greedy = GreedyDecoder(model, suppressed, settings.begin_suppress_tokens)
    log_mel, frames = LogMel(processor.feature_extractor), 2 * model.config.max_source_positions
    for language in sorted({clip.language for clip in clips}):
        encode = LabelEncoder.of(model, tokenizer, language, "transcribe")
        transcriber = Transcriber(model, tokenizer, encode, DecodingConfig(), "fp32")
        own = [clip for clip in clips if clip.language == language]
        for group in (own[i : i + 8] for i in range(0, len(own), 8)):
            mels = [log_mel(clip.waveform) for clip in group]
            features, prompt = pad_windows(mels, frames), encode.prompt()
            limit = model.config.max_target_positions - len(prompt)
            found = greedy(greedy.encode(features), prompt, limit, tokenizer.eos_token_id)
            rows = [row.tokens for row in found]
            windows = [AudioWindow(0, Row("a", b"", ""), mel, 1.0) for mel in mels]
            texts = [transcript.text for transcript in transcriber.generate(windows, prompt)]
            assert texts == [tokenizer.decode(row, skip_special_tokens=True).strip() for row in rows]
            yield from (Decoded(clip, features[n : n + 1], prompt, rows[n]) for n, clip in enumerate(group))


def test_greedy_transcripts_of_real_speech_are_those_of_transformers_to_the_token(whisper: tuple[str, LoadedWhisper]):
    size, loaded = whisper
    model, end = loaded.model, loaded.processor.tokenizer.eos_token_id
    languages = {} if size.endswith(".en") else {"task": "transcribe"}
    count = 0
    for clip, features, prompt, tokens in decoded(loaded, clips_for(size)):
        if languages:
            languages["language"] = clip.language
        room = model.config.max_target_positions - len(prompt)
        theirs = model.generate(features, max_new_tokens=room, do_sample=False, num_beams=1, **languages)[0].tolist()
        theirs = theirs[len(prompt) :] if theirs[: len(prompt)] == prompt else theirs
        theirs = theirs[: theirs.index(end)] if end in theirs else theirs
        assert tokens == theirs, clip.name
        count += 1
    print(f"\n{size}: tokens of {count} clips are those of transformers' generate")
    assert count


def test_greedy_transcripts_of_real_speech_are_those_of_ctranslate2(whisper: tuple[str, LoadedWhisper], tmp_path: Path):
    """But for loops that reach the token limit, which CTranslate2 ends earlier."""
    ctranslate2 = pytest.importorskip("ctranslate2")
    size, loaded = whisper
    ctranslate2.converters.TransformersConverter(str(Path(MODELS or ".", size))).convert(str(tmp_path / "ct2"))
    theirs = ctranslate2.models.Whisper(str(tmp_path / "ct2"), device="cpu", compute_type="float32")
    differing, loops, count = [], 0, 0
    for clip, features, prompt, tokens in decoded(loaded, clips_for(size)):
        view = ctranslate2.StorageView.from_array(np.ascontiguousarray(features.numpy()))
        limit = loaded.model.config.max_target_positions
        result = theirs.generate(view, [prompt], beam_size=1, max_length=limit, suppress_blank=True)[0]
        count += 1
        if len(tokens) == limit - len(prompt):
            loops += 1
            shared = next(
                (n for n, (a, b) in enumerate(zip(tokens, result.sequences_ids[0], strict=False)) if a != b), None
            )
            assert shared is None or shared > limit // 4
        elif result.sequences_ids[0] != tokens:
            differing.append(clip.name)
    print(
        f"\n{size}: {count - loops - len(differing)} of {count} clips as CTranslate2 {ctranslate2.__version__}; "
        f"{loops} loops"
    )
    assert not differing


# --- long recordings and times ---

PAUSE = 1.0  # seconds of silence between two clips


class Recording(NamedTuple):
    """Several clips in a row, with the seconds at which each clip begins and ends."""

    waveform: np.ndarray
    text: str
    spans: list[tuple[float, float]]


def joined(clips: list[Clip]) -> Recording:
    silence = np.zeros(int(PAUSE * RATE), np.float32)
    parts = [part for clip in clips for part in (clip.waveform, silence)][:-1]
    ends = list(accumulate(len(part) / RATE for part in parts))
    spans = [(end - len(part) / RATE, end) for part, end in zip(parts, ends, strict=True)]
    return Recording(np.concatenate(parts), " ".join(clip.text for clip in clips), spans[::2])


def write(file: Path, recordings: list[tuple[np.ndarray, str]], language: str) -> Path:
    rows = []
    for waveform, text in recordings:
        content = io.BytesIO()
        soundfile.write(content, waveform, RATE, format="FLAC")
        audio = {"bytes": content.getvalue(), "path": None}
        rows.append({"audio": audio, "sentence": text, "language": language})
    pq.write_table(pa.Table.from_pylist(rows), file)
    return file


def evaluated(tmp_path: Path, name: str, data: Path, *arguments: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Summary and predictions of evaluate.py with whisper-base."""
    model, out = Path(MODELS or ".", "whisper-base"), tmp_path / name
    ended = run(
        "evaluate.py",
        "--model",
        str(model),
        "--data.path",
        str(data),
        "--out",
        str(out),
        "--sound",
        "false",
        *arguments,
    )
    assert ended.code == 0, ended.out + ended.err
    lines = (out / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    return json.loads((out / "summary.json").read_text()), [json.loads(line) for line in lines]


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Minutes for programs that take seconds with a micro model."""
    monkeypatch.setattr(tests.conftest, "START_SECONDS", 1200)


@pytest.mark.usefixtures("patience")
def test_a_long_recording_of_joined_clips_is_transcribed_about_as_well_as_the_clips(tmp_path: Path):
    for number, (file, clips) in enumerate(known(sets())):
        data = write(tmp_path / "clips.parquet", [(clip.waveform, clip.text) for clip in clips], language_of(file))
        alone, _ = evaluated(tmp_path, f"{number}-clips", data)
        whole = joined(clips)
        data = write(tmp_path / "long.parquet", [(whole.waveform, whole.text)], language_of(file))
        together, rows = evaluated(tmp_path, f"{number}-long", data)
        print(f"\n{file}: WER {alone['wer']:.3f} by clip, {together['wer']:.3f} joined, {rows[0]['windows']} windows")
        assert rows[0]["windows"] > 1
        assert not rows[0]["hit_token_limit"]
        assert together["wer"] < alone["wer"] + 0.05


@pytest.mark.usefixtures("patience")
def test_times_that_the_model_writes_are_those_at_which_clips_were_joined(tmp_path: Path):
    """The clips are whole sentences, joined within one window, so that no time comes from a cut between windows."""
    for number, (file, clips) in enumerate(known(sets(sentences=True))):
        groups: list[list[Clip]] = [[]]
        for clip in clips:
            if groups[-1] and len(joined([*groups[-1], clip]).waveform) > 29 * RATE:
                groups.append([])
            groups[-1].append(clip)
        recordings = [joined(group) for group in groups if len(group) > 1]
        pairs = [(recording.waveform, recording.text) for recording in recordings]
        data = write(tmp_path / "times.parquet", pairs, language_of(file))
        _, rows = evaluated(tmp_path, f"times-{number}", data, "--decoding.timestamps", "true")
        errors = [error for whole, row in zip(recordings, rows, strict=True) for error in time_errors(whole, row)]
        print(f"\n{file}: {shown(errors)}")
        assert statistics.median(errors) <= 0.3
        assert np.quantile(errors, 0.9) <= 0.6


def known(files: dict[Path, list[Clip]]) -> list[tuple[Path, list[Clip]]]:
    """Sets in languages that base knows; in others it may loop in any window. Skip if there is none."""
    found = [(file, clips) for file, clips in files.items() if clips and clips[0].language in KNOWN]
    return found or pytest.skip(f"needs clips in one of {', '.join(KNOWN)}")


def time_errors(recording: Recording, row: dict[str, Any]) -> list[float]:
    """Seconds from each pause between two clips to the nearest end or start of a phrase, 0 for one within the pause."""
    times = [time for start, end, _ in row["segments"] for time in (start, end)]
    pauses = [(end, start) for (_, end), (start, _) in pairwise(recording.spans)]
    return [min(max(end - time, time - start, 0.0) for time in times) for end, start in pauses]


def shown(errors: list[float]) -> str:
    return f"{len(errors)} joins, median {statistics.median(errors):.2f} s, 90 % {np.quantile(errors, 0.9):.2f} s"


# --- labels ---


def test_the_first_token_of_a_label_with_the_automatic_space_is_the_one_that_base_expects():
    for file in sets():
        arguments = ["--model.name", str(Path(MODELS or ".", "whisper-base")), "--data.path", str(file)]
        config = load_config(TrainingConfig, [*arguments, "--data.language", language_of(file)])
        table = start_loss(config, CLIPS, None, lambda *_: None)
        first = {row[0]: float(row[2]) for row in table.rows}
        print(f"\n{file}: {first}")
        assert first["auto"] <= min(first["always"], first["never"])


# --- resume ---


@pytest.mark.usefixtures("patience")
@pytest.mark.parametrize("processes", [1, 2])
def test_base_that_was_killed_and_resumed_has_the_weights_of_an_uninterrupted_run(tmp_path: Path, processes: int):
    file = next(iter(sets()))
    train = Trainer(tmp_path, file.parent, Path(MODELS or ".", "whisper-base"), tmp_path)
    settings: dict[str, Any] = {
        "steps": 3, "batch__size": 2, "batch__per_device": 1, "optim__lr": 1e-5, "save__every": 1, "eval__every": 0,
        "data__path": file, "data__language": language_of(file),
    }  # fmt: skip
    expected = digest(train("whole", processes, **settings))
    shutil.rmtree(tmp_path / "whole")  # gigabytes
    first = "checkpoints/step-00000001/manifest.json"
    code = train.interrupt("cut", lambda folder: (folder / first).exists(), signal.SIGKILL, processes, **settings)
    assert code != 0
    assert digest(train("cut", processes, **settings)) == expected
    shutil.rmtree(tmp_path / "cut")
