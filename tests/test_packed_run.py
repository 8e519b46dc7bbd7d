"""Packed runs of train.py: real processes, killed and resumed, and beside runs that are not packed."""

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from tests.conftest import UNEVALUATED, Trainer, digest, logged, metrics
from whisper_ft.cli.doctor.__main__ import main as doctor
from whisper_ft.cli.replay.__main__ import main as replay

PACKED: dict[str, Any] = {
    "pack__enabled": "true",
    "pack__block": 4,
    "labels__timestamps_share": 0.5,
    "labels__no_speech_share": 0.1,
    "batch__size": 16,
    "batch__per_device": 3,
    "eval__every": 0,
    "steps": 6,
}


@pytest.mark.long
def test_a_packed_run_that_is_killed_and_resumed_ends_with_the_same_weights(train: Trainer):
    whole = train.reference(**PACKED)
    assert train.interrupt("killed", logged(3), signal.SIGKILL, **PACKED, data__workers=2) == -signal.SIGKILL
    assert digest(train("killed", **PACKED, data__workers=1)) == digest(whole)
    for step, row in metrics(whole).items():
        again = metrics(train.folder / "killed")[step]
        assert {name: again[name] for name in FIGURES} == {name: row[name] for name in FIGURES}


FIGURES = ("loss", "label_tokens", "windows", "fill", "audio_hours", "unusable")


@pytest.mark.matrix
def test_a_packed_run_of_two_processes_is_killed_and_resumed_alike(train: Trainer):
    whole = train.reference(processes=2, **PACKED)
    killed = train.interrupt("killed", logged(3), signal.SIGKILL, 2, **PACKED, data__workers=1)
    assert killed in (1, -signal.SIGKILL)
    assert digest(train("killed", 2, **PACKED)) == digest(whole)


@pytest.mark.long
@pytest.mark.parametrize("processes", [2, pytest.param(4, marks=pytest.mark.matrix)])
def test_more_processes_train_on_the_same_windows(train: Trainer, processes: int):
    settings = PACKED | {"model__dropout": 0}
    alone, together = (metrics(train(f"run-{count}", count, **settings)) for count in (1, processes))
    for step, row in alone.items():
        assert {name: together[step][name] for name in FIGURES[1:]} == {name: row[name] for name in FIGURES[1:]}
        assert together[step]["loss"] == pytest.approx(row["loss"], rel=1e-4)


@pytest.mark.matrix
def test_a_packed_run_trains_on_the_same_speech_in_fewer_windows(train: Trainer):
    packed = metrics(train.reference(**PACKED))
    plain = metrics(train("plain", batch__size=16, batch__per_device=4, eval__every=0, steps=6))
    for step, row in packed.items():
        assert row["audio_hours"] == plain[step]["audio_hours"], "speech alone is counted"
        assert row["windows"] < 16
        assert 0.5 < row["fill"] <= 1
        assert not {"windows", "fill"} & set(plain[step])


@pytest.mark.matrix
def test_masks_prompts_and_partial_epochs_resume_alike(train: Trainer):
    settings = PACKED | {
        "labels__prompt_share": 0.5,
        "augment__time_masks": 2,
        "pack__gap_sound": "room",
        "pack__partial_last_share": 1,
        "steps": "null",
        "epochs": 1.1,
        "save__every": 1,
    }
    whole = train("whole", **settings)
    state = json.loads((whole / "checkpoints/step-00000007/trainer.json").read_text())["state"]
    assert state["utterances"] == 110
    train.interrupt("killed", logged(4), signal.SIGKILL, **settings)
    assert digest(train("killed", **settings)) == digest(whole)


@pytest.mark.parametrize(
    ("settings", "facts"),
    [
        ({"pack__enabled": "true"}, ["--pack.block 48", "8 utterances", "batch.size"]),
        ({"pack__gap": "[0.4, 0.1]", "pack__enabled": "true"}, ["--pack.gap", "[0.4, 0.1]"]),
        ({"pack__gap": "[0.1, 60]", "pack__enabled": "true"}, ["--pack.gap", "from 0 to 5"]),
        ({"pack__block": 8}, ["--pack.block 8", "pack.enabled"]),
        ({"pack__gap_sound": "room"}, ["--pack.gap_sound room", "pack.enabled"]),
        ({"pack__gap": "[0.1, 0.2]"}, ["--pack.gap", "pack.enabled"]),
        (
            {"pack__enabled": "true", "pack__block": 4, "pack__partial_last_share": 0.1},
            ["--pack.partial_last_share 0.1", "labels.timestamps_share"],
        ),
        (
            {"pack__enabled": "true", "pack__block": 4, "pack__partial_last_share": 2, "labels__timestamps_share": 1},
            ["--pack.partial_last_share", "from 0 to 1"],
        ),
        (
            {"labels__no_speech_share": 0.1, "labels__no_speech_path": "./nowhere"},
            ["--labels.no_speech_path ./nowhere", "no such file"],
        ),
    ],
)
def test_settings_of_packing_that_cannot_work_are_refused(train: Trainer, settings: dict[str, Any], facts: list[str]):
    message = str(train.refusal("run", **settings))
    assert all(fact in message for fact in facts), message
    assert "\n" not in message


@pytest.mark.long
def test_too_few_blocks_for_the_processes_are_refused_in_one_line(train: Trainer):
    ended = train.end("run", 2, pack__enabled="true", pack__block=8, eval__every=0)
    assert ended.code == 2
    assert len(ended.err.strip().splitlines()) == 1
    assert all(fact in ended.err for fact in ("--pack.block 8", "1 block", "2 processes"))


@pytest.mark.long
def test_a_packed_run_says_its_blocks_and_refuses_to_become_another(train: Trainer):
    run_dir = train.copy_reference(**PACKED)
    ended = train.end("run", **PACKED | {"steps": 7}, allow_change="[steps]", data__workers=5)
    assert ended.code == 0
    (line,) = (line for line in ended.out.splitlines() if line.startswith("packing:"))
    assert all(fact in line for fact in ("16 utterances", "4 blocks of 4"))
    (warning,) = (line for line in ended.out.splitlines() if "data.workers 5" in line)
    assert "only 4 have work" in warning
    assert metrics(run_dir)[7]["windows"] > 0
    assert any(line.startswith("step 7/") and "fill" in line for line in ended.out.splitlines())
    assert "pack.block" in str(train.refusal("run", **PACKED | {"pack__block": 8}))


def test_replay_prints_the_windows_of_a_step(train: Trainer, capsys: pytest.CaptureFixture[str]):
    run_dir = train.reference(**PACKED)
    lines = printed(replay, capsys, "--run_dir", str(run_dir), "--step", "1", "--windows")
    ids = [row["id"] for row in printed(replay, capsys, "--run_dir", str(run_dir), "--step", "1")]
    placed = [utterance for line in lines for utterance in line["utterances"]]
    assert sorted(one["id"] for one in placed) == sorted(ids)
    assert [line["window"] for line in lines] == list(range(len(lines)))
    assert len(lines) == metrics(run_dir)[2]["windows"], "the row of step 1 comes after it"
    for line in lines:
        ends = [one["start"] + one["seconds"] for one in line["utterances"]]
        assert all(one["start"] >= end for one, end in zip(line["utterances"][1:], ends, strict=False))
        assert not ends or ends[-1] == pytest.approx(line["seconds"], abs=1e-3)


def printed(
    program: Callable[[list[str]], int], capsys: pytest.CaptureFixture[str], *arguments: str
) -> list[dict[str, Any]]:
    assert program(list(arguments)) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_the_doctor_shows_the_fill_and_a_window_that_can_be_played(
    train: Trainer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    arguments = train.arguments("run", **PACKED | UNEVALUATED)
    assert doctor([*arguments, "--leakage", "none", "--max_rows", "4", "--out", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    blocks = [line.split() for line in lines if line.strip().startswith("block ")]
    assert len(blocks) == 3
    assert all("4 utterances in" in " ".join(words) and "%" in " ".join(words) for words in blocks)
    assert any("start s" in line and "end s" in line for line in lines)
    page = ElementTree.fromstring((tmp_path / "doctor.html").read_text(encoding="utf-8"))
    (player,) = (element for element in page.iter("audio") if element.attrib["aria-label"] == "sound of this window")
    assert player.attrib["src"].startswith("data:audio/flac;base64,")
