"""Runs with augmented sound: the same for any workers, processes and kills, shown by replay and doctor, and scored."""

import base64
import io
import json
import signal
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile

from tests.conftest import UNEVALUATED, Trainer, digest, logged, metrics, run
from tests.test_packed_run import printed
from whisper_ft.cli.doctor.__main__ import main as doctor
from whisper_ft.cli.replay.__main__ import main as replay
from whisper_ft.config import yaml12
from whisper_ft.config.parse import load_config
from whisper_ft.config.training import TrainingConfig
from whisper_ft.config.tree import to_plain

CHAIN = json.dumps(
    [
        {"speed": {"factor": [0.9, 1.1], "p": 0.5}},
        {"reverb": {"p": 0.3}},
        {"noise": {"of": ["white", "pink", "babble"], "p": 0.5}},
        {"codec": {"of": ["gsm", "ulaw", "mp3@8-24"], "p": 0.5}},
        {"pad": {"p": 0.3}},
    ]
)
AUGMENTED: dict[str, Any] = {"augment__waveform": CHAIN, "eval__every": 0, "steps": 6, "labels__timestamps_share": 0.5}
FIGURES = ("loss", "label_tokens", "audio_hours", "unusable")


@pytest.mark.long
def test_an_augmented_run_that_is_killed_and_resumed_with_other_workers_ends_alike(train: Trainer):
    whole = train.reference(**AUGMENTED)
    assert train.interrupt("killed", logged(3), signal.SIGKILL, **AUGMENTED, data__workers=2) == -signal.SIGKILL
    assert digest(train("killed", **AUGMENTED)) == digest(whole)


@pytest.mark.matrix
def test_a_probability_of_0_ends_in_the_weights_of_a_run_without_augmentation(train: Trainer):
    plain = train.reference(**AUGMENTED | {"augment__waveform": "[]"})
    assert digest(plain) != digest(train.reference(**AUGMENTED))
    assert digest(train("never", **AUGMENTED | {"augment__waveform": "[{noise: {p: 0}}, {speed: {p: 0}}]"})) == digest(
        plain
    )


@pytest.mark.long
def test_two_processes_hear_the_same_sound(train: Trainer):
    settings = AUGMENTED | {"model__dropout": 0}
    alone, together = (metrics(train(f"run-{count}", count, **settings)) for count in (1, 2))
    for step, row in alone.items():
        assert {name: together[step][name] for name in FIGURES[1:]} == {name: row[name] for name in FIGURES[1:]}
        assert together[step]["loss"] == pytest.approx(row["loss"], rel=1e-4)


@pytest.mark.matrix
def test_an_augmented_and_packed_run_resumes_alike(train: Trainer):
    settings = AUGMENTED | {
        "pack__enabled": "true",
        "pack__block": 4,
        "batch__size": 16,
        "batch__per_device": 3,
        "labels__no_speech_share": 0.2,
        "augment__time_masks": 1,
    }
    whole = train("whole", **settings)
    train.interrupt("killed", logged(3), signal.SIGKILL, **settings, data__workers=1)
    assert digest(train("killed", **settings)) == digest(whole)


@pytest.mark.long
def test_replay_writes_what_is_heard_and_another_epoch_hears_other_draws(
    train: Trainer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    settings = AUGMENTED | {"steps": 2, "batch__size": 100}  # a step is an epoch; nothing is trained
    config = to_plain(load_config(TrainingConfig, train.arguments("run", **settings)))
    (tmp_path / "config.yaml").write_text(yaml12.dump(config))

    def heard(step: int, out: Path) -> dict[str, tuple[Any, Any]]:
        found = {}
        for line in printed(replay, capsys, "--run_dir", str(tmp_path), "--step", f"{step}", "--audio", str(out)):
            samples, rate = soundfile.read(out / line["audio"], dtype="float32")
            (utterance,) = line["utterances"]
            assert rate == 16_000
            assert len(samples) / rate == pytest.approx(utterance["seconds"], abs=1e-4)
            found[utterance["id"]] = utterance.get("augmented"), (out / line["audio"]).read_bytes()
        return found

    first, second = (heard(step, tmp_path / f"{step}") for step in (0, 1))
    assert set(first) == set(second)
    assert len(first) == 100
    assert sum(first[row] != second[row] for row in first) > 90
    assert first == heard(0, tmp_path / "again")
    names = [name for drawn, _ in first.values() for one in drawn or () for name in one]
    assert {name: 20 < names.count(name) < 70 for name in names} == dict.fromkeys(
        ("speed", "reverb", "noise", "codec", "pad"), True
    )


@pytest.mark.long
def test_the_doctor_plays_utterances_before_and_after(
    train: Trainer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    settings = AUGMENTED | UNEVALUATED
    settings |= {"augment__waveform": '[{"gain": {"db": -6, "p": 1}}]', "batch__size": 12}
    assert doctor([*train.arguments("run", **settings), "--max_rows", "4", "--out", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any("12 of the first 12" in line for line in lines)
    assert sum("gain (db -6.0)" in line for line in lines) == 10
    page = ElementTree.fromstring((tmp_path / "doctor.html").read_text(encoding="utf-8"))
    pairs = [element for element in page.iter("audio") if element.attrib["aria-label"] in ("before", "after")]
    players = [element.attrib["src"] for element in pairs]
    sounds = [soundfile.read(io.BytesIO(base64.b64decode(source.partition(",")[2])))[0] for source in players]
    assert len(sounds) == 20
    for before, after in zip(sounds[::2], sounds[1::2], strict=True):
        assert after == pytest.approx(before * 10**-0.3, abs=1e-3)


def test_held_out_sound_among_the_noise_is_told(
    train: Trainer, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (row,) = pq.read_table(next((corpus / "validation").glob("*.parquet"))).slice(0, 1).to_pylist()
    (tmp_path / "noise").mkdir()
    (tmp_path / "noise" / "hum.flac").write_bytes(row["audio"]["bytes"])
    chain = json.dumps([{"noise": str(tmp_path / "noise")}])
    arguments = train.arguments("run", **AUGMENTED | {"augment__waveform": chain, "eval__every": 2})
    assert doctor([*arguments, "--max_rows", "4", "--fail"]) == 4
    assert "hum.flac" in capsys.readouterr().out


@pytest.mark.long
def test_a_set_is_scored_under_an_augmentation_and_the_held_out_set_is_clean(train: Trainer, corpus: Path):
    phone = [{"codec": {"of": "gsm", "p": 1}}, {"noise": {"of": "white", "snr_db": 0, "p": 1}}]
    sets = json.dumps(
        [
            {"name": "clean", "path": str(corpus / "validation"), "max_utterances": 4},
            {"name": "phone", "path": str(corpus / "validation"), "max_utterances": 4, "augment": phone},
        ]
    )
    settings = {"steps": 2, "eval__every": 2, "save__every": 0, "eval__sets": sets, "augment__waveform": "light"}
    run_dir = train("run", **settings)
    row = metrics(run_dir, having="wer")[2]
    assert row["clean/eval_loss"] == row["eval_loss"]
    assert row["phone/eval_loss"] != row["eval_loss"]
    resumed = train.end(
        "run", **settings | {"steps": 4, "eval__sets": sets.replace('"gsm"', '"ulaw"')}, allow_change="[steps]"
    )
    assert resumed.code == 0, resumed.err
    assert any("phone" in line and "cannot be compared" in line for line in resumed.out.splitlines())

    out = run_dir / "evaluated"
    test = ["--model", str(run_dir), "--data.path", str(corpus / "validation"), "--data.language", "be"]
    test += [
        "--max_utterances",
        "4",
        "--decoding.max_new_tokens",
        "12",
        "--decoding.with_loss",
        "true",
        "--precision",
        "fp32",
    ]
    losses: list[float] = []
    for name, augment in (("clean", "[]"), ("phone", json.dumps(phone)), ("again", json.dumps(phone))):
        ended = run("evaluate.py", *test, "--augment", augment, "--out", str(out / name))
        assert ended.code == 0, ended.out + ended.err
        summary = json.loads((out / name / "summary.json").read_text())
        losses.append(summary["eval_loss"])
        assert [next(iter(one)) for one in summary.get("augment", [])] == [
            *(["codec", "noise"] if name != "clean" else [])
        ]
        told = "augmented by codec, noise" in (out / name / "report.html").read_text(encoding="utf-8")
        assert told == ("augmented sound: codec, noise" in ended.out) == (name != "clean")
    assert losses[0] != losses[1] == losses[2]


@pytest.mark.long
def test_other_recordings_of_equal_length_are_noticed_when_a_run_resumes(train: Trainer, corpus: Path, tmp_path: Path):
    def write(name: str, seed: int) -> str:
        (tmp_path / name).mkdir(exist_ok=True)
        samples = np.random.default_rng(seed).uniform(-0.5, 0.5, 32_000)
        soundfile.write(tmp_path / name / "a.wav", samples, 16_000)
        return str(tmp_path / name)

    chain = json.dumps([{"noise": write("street", 1)}])
    noisy = {"name": "noisy", "path": str(corpus / "validation"), "max_utterances": 2}
    sets = json.dumps([noisy | {"augment": [{"noise": write("kitchen", 2)}]}])
    settings = {"augment__waveform": chain, "eval__sets": sets, "eval__every": 2, "save__every": 0}
    settings |= {"labels__no_speech_share": 0.2, "labels__no_speech_path": write("room", 3)}
    train("run", **settings, steps=2)
    for seed, name in ((1, "street"), (3, "room")):
        write(name, 10)
        refused = train.end("run", **settings, steps=4, allow_change="[steps]")
        assert refused.code == 2, refused.err
        assert str(tmp_path / name) in refused.err
        write(name, seed)
    write("kitchen", 10)
    resumed = train.end("run", **settings, steps=4, allow_change="[steps]")
    assert resumed.code == 0, resumed.err
    assert any("noisy" in line and "cannot be compared" in line for line in resumed.out.splitlines())
