"""`python -m whisper_ft replay`: the utterances of a step, without a model."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import ROOT, Ended, Trainer
from whisper_ft.cli.replay.__main__ import main
from whisper_ft.cli.replay.step_rows import replay
from whisper_ft.config import yaml12
from whisper_ft.config.parse import load_config
from whisper_ft.config.training import TrainingConfig
from whisper_ft.config.tree import to_plain


@pytest.fixture
def run_replay(capsys: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    def run_in_this_process(*arguments: str) -> Ended:
        code = main(arguments)
        out, err = capsys.readouterr()
        return Ended(code, out, err)

    return run_in_this_process


@pytest.mark.long
def test_replay_names_the_utterances_of_a_step_without_a_model(train: Trainer, run_replay: Callable[..., Ended]):
    run_dir = train("run", steps=2)
    saved = load_config(TrainingConfig, ["--config", str(run_dir / "config.yaml")])
    rows = [row for step in range(13) for row in replay(saved, step)]
    first_epoch = [row["id"] for row in rows if row["epoch"] == 0]
    assert len(first_epoch) == len(set(first_epoch)) == 100
    assert [row["position"] for row in rows] == list(range(13 * 8))
    (run_dir / "config.yaml").write_text("seed: 9\n")  # written by a start that was refused
    printed = run_replay("--run_dir", str(run_dir), "--step", "1")
    assert [json.loads(line) for line in printed.out.splitlines()] == rows[8:16]
    beyond = run_replay("--run_dir", str(run_dir), "--step", "2")
    assert (beyond.code, beyond.out) == (2, "")
    assert all(fact in beyond.err for fact in ("--step 2", "2 steps", "0 to 1"))
    (run_dir / "checkpoints").rename(run_dir / "none")
    (run_dir / "config.yaml").write_text(yaml12.dump(to_plain(saved)))  # a run before its first save
    assert run_replay("--run_dir", str(run_dir), "--step", "1").out == printed.out


@pytest.mark.parametrize(
    ("arguments", "facts"),
    [
        ("--step -1", ["--step", "-1"]),
        ("--step three", ["--step", "'three'"]),
        ("", ["--step"]),
        ("--step 0 --run_dir nowhere", ["nowhere", "config.yaml"]),
        ("--step 0", ["of/another/folder", "--data.path PATH"]),
        ("--step 0 --data.path nowhere", ["--data.path nowhere"]),
        ("--step 1000000 --data.path {corpus}/train", ["--step 1000000", "steps"]),
    ],
)
def test_a_replay_that_cannot_be_is_refused_in_one_line(
    arguments: str, facts: list[str], corpus: Path, tmp_path: Path, run_replay: Callable[..., Ended]
):
    arguments = arguments.format(corpus=corpus)
    (tmp_path / "config.yaml").write_text("data: {path: of/another/folder}\n")
    refused = run_replay("--run_dir", str(tmp_path), *arguments.split())
    assert (refused.code, refused.out, refused.err.count("\n")) == (2, "", 1)
    assert [fact for fact in facts if fact not in refused.err] == []


def test_the_data_path_is_not_advised_for_a_run_of_several_sources(tmp_path: Path, run_replay: Callable[..., Ended]):
    (tmp_path / "config.yaml").write_text("data: {sources: [{path: of/another/folder}]}\n")
    refused = run_replay("--run_dir", str(tmp_path), "--step", "0")
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert "of/another/folder" in refused.err
    assert "--data.path" not in refused.err


def test_a_step_after_the_last_epoch_is_refused(corpus: Path, tmp_path: Path, run_replay: Callable[..., Ended]):
    (tmp_path / "config.yaml").write_text(f"data: {{path: {corpus}/train}}\nepochs: 0.5\nbatch: {{size: 8}}\n")
    assert run_replay("--run_dir", str(tmp_path), "--step", "6").out.count("\n") == 2
    beyond = run_replay("--run_dir", str(tmp_path), "--step", "7")
    assert (beyond.code, beyond.out) == (2, "")
    assert all(fact in beyond.err for fact in ("--step 7", "epochs: 0.5"))


@pytest.mark.long
def test_a_replay_finds_data_elsewhere_and_may_be_cut_short(
    corpus: Path, tmp_path: Path, run_replay: Callable[..., Ended]
):
    (tmp_path / "config.yaml").write_text("data: {path: of/another/folder}\n")
    arguments = ["--run_dir", str(tmp_path), "--step", "0", "--data.path", str(corpus / "train")]
    printed = run_replay(*arguments)
    assert (printed.code, printed.out.count("\n")) == (0, 16)
    replaying = f"{sys.executable} -m whisper_ft replay {' '.join(arguments)}"
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {replaying} | :"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
