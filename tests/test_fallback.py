"""Fall-back and no speech: off unless asked for, and the same in any batch, number of processes and after any stop."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import Trainer, metrics, run
from tests.wild_model import noise, wild
from whisper_ft.config.evaluation import DecodingConfig, EvalConfig
from whisper_ft.config.parse import load_config
from whisper_ft.config.scoring import EvaluationConfig
from whisper_ft.config.training import TrainingConfig
from whisper_ft.data.labels.tokens import LabelEncoder
from whisper_ft.decoding.eval_protocol import EvalProtocol
from whisper_ft.decoding.resume_log import ResumeLog
from whisper_ft.decoding.sampling import Sampler
from whisper_ft.decoding.transcribe import transcribe
from whisper_ft.decoding.transcriber import Transcriber
from whisper_ft.models.export.hf import config_files, export
from whisper_ft.runtime.collectives import Collectives
from whisper_ft.runtime.errors import UsageError
from whisper_ft.runtime.rng import number_of, uniforms
from whisper_ft.scoring.scores import Prediction

ALL: dict[str, Any] = {
    "temperature_fallback": [1.0, 2.0, 4.0],
    "logprob_threshold": None,
    "compression_ratio_threshold": 0.65,
}
"""Settings with which the first texts of the wild model repeat themselves, and most random ones do not."""


@pytest.fixture(scope="module")
def micro(micro_whisper: Path) -> tuple[Any, Any]:
    return wild(micro_whisper)


def predictions(micro: tuple[Any, Any], indexes: range, batch: int, **settings: Any) -> list[Prediction]:
    model, processor = micro
    encode = LabelEncoder.of(model, processor.tokenizer, "be", "transcribe")
    decoding = DecodingConfig(**({"max_new_tokens": 8} | settings))
    decoder = Transcriber(model, processor.tokenizer, encode, decoding, "fp32")
    windows = [noise(model, index) for index in indexes]
    by_index = {window.index: place for place, window in enumerate(windows)}
    ordered = [type(w)(by_index[w.index], w.row, w.features, w.seconds) for w in windows]
    return transcribe(decoder, ordered, batch, len(ordered), Collectives())


# --- random numbers and sampling ---


def test_the_numbers_of_a_key_are_its_own_and_begin_alike():
    assert uniforms(5, 1, 2).tolist() == uniforms(9, 1, 2)[:5].tolist()
    assert uniforms(5, 1, 2).tolist() != uniforms(5, 2, 1).tolist()
    many = uniforms(10_000, 7)
    assert 0 <= many.min() < many.max() < 1
    assert abs(many.mean() - 0.5) < 0.01
    assert number_of("a.flac") != number_of("b.flac")
    assert number_of("\ud83d") >= 0


@pytest.mark.long
@given(st.lists(st.one_of(st.just(float("-inf")), st.floats(-50, 50)), min_size=2, max_size=30), st.floats(0.05, 3))
def test_a_refused_token_is_never_drawn(logits: list[float], temperature: float):
    if all(value == float("-inf") for value in logits):
        logits = [0.0, *logits]
    row = torch.tensor([logits])
    for number in (0.0, 0.5, 1 - 2.0**-32):
        [token] = Sampler(temperature, [np.array([number])])(row, [0], 0)
        assert row[0, token] > float("-inf")


@pytest.mark.long
def test_tokens_are_drawn_as_often_as_their_probability_at_the_temperature():
    logits = torch.log(torch.tensor([[0.5, 0.3, 0.0, 0.2]]))
    numbers = uniforms(20_000, 3)
    sampler = Sampler(0.5, [numbers])
    drawn = Counter(int(sampler(logits, [0], place)) for place in range(len(numbers)))
    squares = np.array([0.25, 0.09, 0.0, 0.04])
    assert [drawn[token] / len(numbers) for token in range(4)] == pytest.approx(list(squares / squares.sum()), abs=0.01)


def test_a_row_is_drawn_by_its_own_numbers_in_any_batch():
    logits = torch.randn(4, 50, generator=torch.Generator().manual_seed(1))
    numbers = [uniforms(3, row) for row in range(4)]
    together = Sampler(1.0, numbers)(logits, [0, 1, 2, 3], 2)
    for row in range(4):
        assert Sampler(1.0, [numbers[row]])(logits[row : row + 1], [0], 2) == together[row]
    assert Sampler(1.0, numbers)(logits[[3, 1]], [3, 1], 2).tolist() == together[[3, 1]].tolist()


# --- attempts ---


def test_further_attempts_are_the_same_in_any_batch_and_at_each_start(micro: tuple[Any, Any]):
    together = predictions(micro, range(6), 6, **ALL)
    assert together == predictions(micro, range(6), 6, **ALL)
    alone = [one for index in range(6) for one in predictions(micro, range(index, index + 1), 1, **ALL)]
    assert [one.hyp for one in alone] == [one.hyp for one in together]
    assert [one.hyp for one in predictions(micro, range(6), 4, **ALL)] == [one.hyp for one in together]
    greedy = predictions(micro, range(6), 6)
    differing = [one.hyp != other.hyp for one, other in zip(greedy, together, strict=True)]
    temperatures = [window["temperature"] for one in together for window in one.window_confidence or ()]
    assert [temperature > 0 for temperature in temperatures] == differing
    assert len(set(temperatures) - {0.0}) > 1


def test_an_interruption_leaves_the_attempts_as_they_are(micro: tuple[Any, Any], tmp_path: Path):
    whole = predictions(micro, range(5), 5, **ALL)
    job = {"model": "m"}
    log = ResumeLog(tmp_path, 0, ResumeLog.open(tmp_path, job))
    for place, prediction in enumerate(predictions(micro, range(2), 2, **ALL)):
        log.append(place, prediction)
    known = ResumeLog.open(tmp_path, job)
    rest = predictions(micro, range(2, 5), 1, **ALL)
    continued = [*known.values(), *rest]
    assert [one.hyp for one in continued] == [one.hyp for one in whole]
    assert [one.window_confidence for one in known.values()] == [one.window_confidence for one in whole[:2]]


def test_attempts_end_with_the_first_that_is_accepted(micro: tuple[Any, Any]):
    first = predictions(micro, range(6), 6)
    again = predictions(micro, range(6), 6, **ALL | {"compression_ratio_threshold": 1.2})
    kept = 0
    for before, after in zip(first, again, strict=True):
        [window], [other] = after.window_confidence or (), before.window_confidence or ()
        assert window["compression_ratio"] <= 1.2
        if other["compression_ratio"] <= 1.2:
            assert after == before
            kept += 1
        else:
            assert window["temperature"] == 1.0
    assert 0 < kept < 6


@given(st.lists(st.floats(-20, 20), min_size=2, max_size=20, unique_by=lambda value: round(value, 1)))
def test_at_a_low_temperature_the_likeliest_token_is_drawn(logits: list[float]):
    row = torch.tensor([logits])
    assert Sampler(1e-3, [np.array([0.5])])(row, [0], 0) == row.argmax()


def test_beams_are_of_the_first_attempt_alone(micro: tuple[Any, Any]):
    beams = predictions(micro, range(6), 6, num_beams=3)
    pairs = zip(
        predictions(micro, range(6), 6, num_beams=3, **ALL), predictions(micro, range(6), 6, **ALL), strict=True
    )
    drawn = [(one, other) for one, other in pairs if one.window_confidence[0]["temperature"]]  # type: ignore[index]
    assert drawn
    assert all(one.hyp == other.hyp for one, other in drawn)
    unmoved = predictions(micro, range(6), 6, num_beams=3, **ALL | {"compression_ratio_threshold": None})
    assert [one.hyp for one in unmoved] == [one.hyp for one in beams]


def test_a_window_without_speech_has_the_empty_text_and_keeps_its_figures(micro: tuple[Any, Any]):
    first = predictions(micro, range(4), 4, timestamps=True)
    silent = predictions(micro, range(4), 4, timestamps=True, no_speech_threshold=0.0, logprob_threshold=None)
    assert any(one.hyp for one in first)
    for before, after in zip(first, silent, strict=True):
        assert (after.hyp, after.hyp_tokens, after.hit_token_limit, after.segments) == ("", 0, False, [])
        [window], [kept] = after.window_confidence or (), before.window_confidence or ()
        assert window == kept | {"is_speech": False}


# --- settings ---


@pytest.mark.parametrize("section", ["decoding", "eval"])
@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("no_speech_threshold", "1.5"),
        ("no_speech_threshold", "-0.1"),
        ("no_speech_threshold", "loud"),
        ("temperature_fallback", "[0.0, 0.2]"),
        ("temperature_fallback", "[0.2, -1]"),
        ("temperature_fallback", "[.nan]"),
        ("temperature_fallback", "often"),
        ("temperature_fallback", "0.2"),
        ("logprob_threshold", ".inf"),
        ("logprob_threshold", "-0.5"),  # without attempts that could use it
        ("logprob_threshold", "null"),
        ("compression_ratio_threshold", "2.0"),
        ("compression_ratio_threshold", "much"),
    ],
)
def test_an_impossible_value_is_refused_with_its_setting(section: str, setting: str, value: str):
    with pytest.raises(UsageError, match=f"--{section}.{setting}") as refused:
        load_config(EvaluationConfig if section == "decoding" else TrainingConfig, [f"--{section}.{setting}", value])
    assert "\n" not in str(refused.value)


def test_the_temperatures_are_those_of_openai_or_of_the_list():
    assert DecodingConfig().temperatures == []
    assert DecodingConfig(temperature_fallback=True).temperatures == [0.2, 0.4, 0.6, 0.8, 1.0]
    given = load_config(EvaluationConfig, ["--decoding.temperature_fallback", "[0.3, 1]"]).decoding
    assert given.temperatures == [0.3, 1.0]
    assert load_config(EvaluationConfig, ["--decoding.temperature_fallback", "true"]).decoding.temperatures[-1] == 1.0


def test_the_protocol_of_an_evaluation_names_them_and_an_early_one_is_without():
    def protocol(**settings: Any) -> EvalProtocol:
        return EvalProtocol.of({"digest": "x"}, 12, EvalConfig(**settings), "fp32", "all")

    off, on = protocol(), protocol(temperature_fallback=True)
    assert "attempts" not in off.to_json(), "a log of before is continued"
    assert EvalProtocol.from_json(off.to_json()).matches(off)
    assert EvalProtocol.from_json(json.loads(json.dumps(on.to_json()))).matches(on)
    different = [on, protocol(temperature_fallback=[0.5]), protocol(no_speech_threshold=0.6)]
    different += [protocol(temperature_fallback=True, compression_ratio_threshold=2.0)]
    assert not any(one.matches(other) for one in [off, *different] for other in different if one is not other)


# --- programs ---

SETTINGS = {
    "temperature_fallback": "[1.0, 2.0, 4.0]",
    "logprob_threshold": "null",
    "compression_ratio_threshold": "0.65",
    "max_new_tokens": "8",
}


@pytest.fixture(scope="module")
def wild_folder(micro: tuple[Any, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the wild model."""
    folder = tmp_path_factory.mktemp("wild") / "model"
    export(micro[0], config_files(*micro), folder, "")
    return folder


def evaluated(model: Path, data: Path, out: Path, processes: int = 1, **more: str) -> tuple[Any, list[dict[str, Any]]]:
    arguments = ["--model", model, "--data.path", data, "--data.language", "be", "--out", out, "--sound", "false"]
    arguments += [text for name, value in (SETTINGS | more).items() for text in (f"--decoding.{name}", value)]
    ended = run("evaluate.py", *map(str, arguments), processes=processes)
    assert ended.code == 0, ended.out + ended.err
    rows = (out / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    return json.loads((out / "summary.json").read_text()), [json.loads(row) for row in rows]


@pytest.mark.long
def test_the_number_of_processes_leaves_the_attempts_as_they_are(wild_folder: Path, corpus: Path, tmp_path: Path):
    summary, rows = evaluated(wild_folder, corpus / "test", tmp_path / "one")
    assert summary["fallback_windows"] == sum(row["temperature"] > 0 for row in rows) > 0
    assert summary["config"]["decoding"]["temperature_fallback"] == [1.0, 2.0, 4.0]
    _, again = evaluated(wild_folder, corpus / "test", tmp_path / "two", processes=2, batch_size="5")
    assert [row["hyp"] for row in again] == [row["hyp"] for row in rows]


@pytest.mark.long
def test_windows_without_speech_are_counted(micro_whisper: Path, corpus: Path, tmp_path: Path):
    alone = {"temperature_fallback": "false", "compression_ratio_threshold": "2.4", "no_speech_threshold": "0.0"}
    summary, rows = evaluated(micro_whisper, corpus / "test", tmp_path, **alone)
    assert summary["no_speech_windows"] == summary["utterances"] == 12
    assert (summary["fallback_windows"], summary["wer"]) == (0, 1.0)
    assert {row["hyp"] for row in rows} == {""}
    assert not any(window["is_speech"] for row in rows for window in row["window_confidence"])


@pytest.mark.long
def test_a_run_evaluates_with_them_and_evaluate_writes_the_same(train: Trainer, wild_folder: Path, tmp_path: Path):
    settings = {f"eval__{name}": value for name, value in SETTINGS.items()}
    folder = train("run", steps=2, eval__every=2, model__name=wild_folder, **settings)
    logged = metrics(folder, having="wer")[2]
    lines = (folder / "predictions/step-00000002.jsonl").read_text(encoding="utf-8").splitlines()
    in_loop = [json.loads(line) for line in lines]
    assert logged["fallback_windows"] == sum(row["temperature"] > 0 for row in in_loop) > 0
    summary, rows = evaluated(folder / "final", train.corpus / "validation", tmp_path / "out")
    assert [row["hyp"] for row in rows[:4]] == [row["hyp"] for row in in_loop]
    assert [row["temperature"] for row in rows[:4]] == [row["temperature"] for row in in_loop]
    assert summary["utterances"] == 12


def test_a_threshold_is_accepted_beside_the_attempts_that_use_it():
    silent, again = ["--eval.no_speech_threshold", "0.6"], ["--eval.temperature_fallback", "true"]
    for user in (silent, again):
        assert load_config(TrainingConfig, [*user, "--eval.logprob_threshold", "-0.5"]).eval.logprob_threshold == -0.5
    with pytest.raises(UsageError, match="temperature_fallback"):
        load_config(TrainingConfig, [*silent, "--eval.compression_ratio_threshold", "2.0"])
