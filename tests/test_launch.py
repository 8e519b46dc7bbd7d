"""launch.sh: one command in any number of processes, and bad input told once before anything starts."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.conftest import ROOT, Ended, Trainer, command, digest, environment, metrics
from whisper_ft.commandline import load
from whisper_ft.config import Config
from whisper_ft.replay import replay


def launch(*arguments: str, cwd: Path = ROOT, **variables: str) -> Ended:
    done = subprocess.run(
        [str(ROOT / "launch.sh"), *arguments],
        cwd=cwd,
        env=environment(1) | variables,
        capture_output=True,
        text=True,
        timeout=300,
    )
    return Ended(done.returncode, done.stdout, done.stderr)


def test_launch_trains_like_train_py_does(train: Trainer):
    alone = train("alone", steps=2)
    ended = launch(*train.arguments("launched", steps=2))
    assert ended.code == 0, ended.err
    assert digest(train.folder / "launched") == digest(alone)


def test_nproc_makes_one_group_of_that_many_processes(train: Trainer, tmp_path: Path):
    """From another folder, with two processes: each step still trains on one global batch."""
    ended = launch(*train.arguments("two", steps=2, model__dropout=0), cwd=tmp_path, NPROC="2")
    assert ended.code == 0, ended.err
    one = metrics(train("one", steps=2, model__dropout=0))
    for step, row in metrics(train.folder / "two").items():
        assert row["label_tokens"] == one[step]["label_tokens"]
        assert row["loss"] == pytest.approx(one[step]["loss"], rel=1e-5)
    assert ended.out.count("finished at step 2") == 1, "only the main process speaks"


def test_another_program_by_its_name(micro_whisper: Path, corpus: Path, tmp_path: Path):
    arguments = ["--model", str(micro_whisper), "--data.path", str(corpus / "test"), "--data.language", "be"]
    limits = ["--max_utterances", "2", "--decoding.max_new_tokens", "5"]
    ended = launch("evaluate.py", *arguments, *limits, "--out", str(tmp_path / "out"))
    assert ended.code == 0, ended.err
    assert (tmp_path / "out/summary.json").exists()
    assert "WER" in ended.out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--optim.lrr", "1"], "unknown setting 'optim.lrr'; did you mean 'optim.lr'?"),
        (["--config", "nowhere.yaml"], "there is no such file"),
        (["--data.path", "nowhere"], "--data.path nowhere: there is no such file or folder"),
        (["--data.path", ".", "--steps", "many"], "--steps many: expected an int"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2_before_any_process_starts(arguments: list[str], told: str):
    ended = launch(*arguments, NPROC="2")
    assert ended.code == 2
    assert told in ended.err
    assert len(ended.err.strip().splitlines()) == 1
    assert ended.out == ""


@pytest.mark.parametrize("number", ["0", "two", "-1"])
def test_a_number_of_processes_that_is_none_is_refused(number: str):
    ended = launch("--data.path", ".", NPROC=number)
    assert (ended.code, ended.err) == (2, f"error: NPROC={number}: a number of processes from 1 up is needed\n")


def test_another_configuration_is_refused_before_any_process_starts(train: Trainer):
    train("run", steps=2)
    ended = launch(*train.arguments("run", steps=2, seed=9))
    assert ended.code == 2
    assert "seed was 1 and is 9" in ended.err
    assert len(ended.err.strip().splitlines()) == 1


def test_processes_that_are_not_one_group_are_refused(train: Trainer):
    """What `accelerate launch --multi_gpu` does on a CPU box by itself: two runs that both think they are alone."""
    alone = {key: value for key, value in environment(1).items() if key != "ACCELERATE_USE_CPU"}
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU, so the processes are one group")
    done = subprocess.run(
        command("train.py", 2, *train.arguments("run", steps=1)),
        cwd=ROOT,
        env=alone,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode != 0
    assert done.stderr.count("error: WORLD_SIZE is 2, but accelerate made 1 unconnected") == 1
    assert not (train.folder / "run").exists()


def test_replay_names_the_utterances_of_a_step_without_a_model(train: Trainer):
    run_dir = train("run", steps=2)
    saved = load(Config, ["--config", str(run_dir / "config.yaml")])
    lines = [line for step in range(13) for line in replay(saved, step)]
    first_epoch = [line["id"] for line in lines if line["epoch"] == 0]
    assert len(first_epoch) == len(set(first_epoch)) == 100
    assert [line["position"] for line in lines] == list(range(13 * 8))
    told = replay_program("--run_dir", str(run_dir), "--step", "3")
    assert [json.loads(line) for line in told.out.splitlines()] == lines[24:32]
    refused = replay_program("--run_dir", str(run_dir), "--step", "-1")
    assert (refused.code, refused.err) == (2, "error: --step must be 0 or more, got -1\n")


def replay_program(*arguments: str) -> Ended:
    argv = [sys.executable, "-m", "whisper_ft.replay", *arguments]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    return Ended(done.returncode, done.stdout, done.stderr)


def test_the_output_may_be_closed_and_training_goes_on(train: Trainer):
    """`./launch.sh ... | head -1`."""
    arguments = " ".join(train.arguments("run", steps=3))
    subprocess.run(
        ["bash", "-c", f"{sys.executable} train.py {arguments} 2>&1 | head -1"],
        cwd=ROOT,
        env=environment(1) | {"PYTHONUNBUFFERED": "1"},
        check=True,
        capture_output=True,
        timeout=120,
    )
    assert sorted(metrics(train.folder / "run")) == [1, 2, 3]
    assert (train.folder / "run/final/model.safetensors").exists()
