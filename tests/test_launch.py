"""launch.sh: one command in any number of processes, and bad input told once before anything starts."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import psutil
import pytest
import torch

from tests.conftest import (
    ROOT,
    START_SECONDS,
    Ended,
    Trainer,
    all_signals_heard,
    command,
    digest,
    environment,
    logged,
    metrics,
    parent,
    starts_quickly,
)
from whisper_ft.cli.launch import main


def launch(*arguments: str, cwd: Path = ROOT, **variables: str) -> Ended:
    """A launch as a user makes it: a new shell and a new python."""
    done = subprocess.run(
        [str(ROOT / "launch.sh"), *arguments],
        cwd=cwd,
        env=environment(1) | variables,
        capture_output=True,
        text=True,
        timeout=300,
    )
    return Ended(done.returncode, done.stdout, done.stderr)


def launch_quickly(*arguments: str, **variables: str) -> Ended:
    """The same without the shell, forked from a process that has imported torch already."""
    if not starts_quickly():
        return launch(*arguments, **variables)
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        variables = {"PYTHONPATH": str(ROOT)} | variables  # as launch.sh sets it
        started = parent().start("whisper_ft/cli/launch.py", list(arguments), ROOT, out, err, **variables)
        code = started.wait(START_SECONDS)
        out.seek(0)
        err.seek(0)
        return Ended(code, out.read(), err.read())


@pytest.fixture
def launch_here(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> Iterator[Callable[..., Ended]]:
    """The launch in this process, in a folder of the test's own: for command lines that start no program."""
    before, folder = dict(os.environ), Path.cwd()
    monkeypatch.chdir(tmp_path)

    def launch_in_this_process(*arguments: str, **variables: str) -> Ended:
        os.environ.update({"PYTHONPATH": str(ROOT)} | variables)  # as launch.sh sets it
        code = main(arguments)
        out, err = capfd.readouterr()
        return Ended(code, out, err)

    yield launch_in_this_process
    os.environ.clear()
    os.environ.update(before)
    os.chdir(folder)


@pytest.mark.long
def test_launch_trains_like_train_py_does(train: Trainer):
    alone = train("alone", steps=2)
    ended = launch(*train.arguments("launched", steps=2))
    assert ended.code == 0, ended.err
    assert digest(train.folder / "launched") == digest(alone)


@pytest.mark.matrix
def test_nproc_makes_one_group_of_that_many_processes(train: Trainer, tmp_path: Path):
    """From another folder, with two processes: each step still trains on one global batch."""
    ended = launch(*train.arguments("two", steps=2, model__dropout=0), cwd=tmp_path, NPROC="2")
    assert ended.code == 0, ended.err
    one = metrics(train("one", steps=2, model__dropout=0))
    for step, row in metrics(train.folder / "two").items():
        assert row["label_tokens"] == one[step]["label_tokens"]
        assert row["loss"] == pytest.approx(one[step]["loss"], rel=1e-5)
    assert ended.out.count("finished at step 2") == 1, "only the main process speaks"


@pytest.mark.matrix
def test_another_program_by_its_name(micro_whisper: Path, corpus: Path, tmp_path: Path):
    arguments = ["--model", str(micro_whisper), "--data.path", str(corpus / "test"), "--data.language", "be"]
    limits = ["--max_utterances", "2", "--decoding.max_new_tokens", "5"]
    ended = launch_quickly("evaluate.py", *arguments, *limits, "--out", str(tmp_path / "out"))
    assert ended.code == 0, ended.err
    assert (tmp_path / "out/summary.json").exists()
    assert "WER" in ended.out


@pytest.mark.parametrize(
    ("arguments", "facts"),
    [
        ("--optim.lrr 1", ["'optim.lrr'", "'optim.lr'"]),
        ("--steps 3 --typo 4", ["'typo'"]),
        ("--config nowhere.yaml", ["nowhere.yaml"]),
        ("--data.path nowhere", ["--data.path nowhere"]),
        ("--data.path . --steps many", ["--steps many", "int"]),
        ("evaluate.py --modle x", ["'modle'", "'model'"]),
        ("evaluate.py --model ./nowhere", ["--model ./nowhere"]),
        ("--gpus x", ["--gpus x"]),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2_before_any_process_starts(
    launch_here: Callable[..., Ended], arguments: str, facts: list[str]
):
    ended = launch_here(*arguments.split(), NPROC="2")
    assert (ended.code, ended.out, ended.err.count("\n")) == (2, "", 1)
    assert [fact for fact in facts if fact not in ended.err] == []


def test_bad_input_to_the_script_itself_is_one_line(tmp_path: Path):
    ended = launch("--optim.lrr", "1", cwd=tmp_path)
    assert (ended.code, ended.out, ended.err.count("\n")) == (2, "", 1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.long
def test_another_configuration_is_refused_before_any_process_starts(train: Trainer, launch_here: Callable[..., Ended]):
    train("run", steps=2)
    ended = launch_here(*train.arguments("run", steps=2, seed=9))
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert "seed was 1 and is 9" in ended.err


@pytest.mark.matrix
def test_processes_that_are_not_one_group_are_refused(train: Trainer):
    """By default `accelerate launch --multi_gpu` on a CPU starts two separate runs."""
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


@pytest.mark.parametrize("program", ["train.py", "evaluate.py"])
def test_help_is_told_once(program: str, launch_here: Callable[..., Ended]):
    ended = launch_here(*([program] if program == "evaluate.py" else []), "--help", NPROC="2")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.count("usage: ") == ended.out.count(f"usage: {program} ") == 1


def test_without_an_environment_the_way_to_make_one_is_told(tmp_path: Path):
    shutil.copy(ROOT / "launch.sh", tmp_path)
    (tmp_path / "whisper_ft").symlink_to(ROOT / "whisper_ft")
    venv.create(tmp_path / "bare")
    path = f"{tmp_path}/bare/bin:/usr/bin:/bin"
    done = subprocess.run(
        [str(tmp_path / "launch.sh"), "--help"], env={"PATH": path}, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "make setup" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.long
@pytest.mark.parametrize(
    "spelling", ["--config {}", "--config={}", "--model.name demo-data/micro-whisper --data.path ."]
)
def test_what_the_demo_trains_on_is_made_where_it_is_missing(
    spelling: str, tmp_path: Path, launch_here: Callable[..., Ended]
):
    """Seen by the refusal of the program that makes it: this folder has another corpus of that name."""
    (tmp_path / "demo-data/be/other").mkdir(parents=True)
    ended = launch_here(*spelling.format(ROOT / "configs/demo.yaml").split())
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert "demo-data/be is there already" in ended.err


@pytest.mark.parametrize(
    "arguments",
    [
        "evaluate.py --model ./nowhere",
        "--data.path demo-data.parquet --config a.yaml",
        "--model.name demo-data/micro --data.path .",
    ],
)
def test_what_only_speaks_of_the_demo_makes_none(arguments: str, tmp_path: Path, launch_here: Callable[..., Ended]):
    (tmp_path / "a.yaml").write_text("steps: 2  # not on demo-data/be\n")
    assert launch_here(*arguments.split()).code == 2
    assert [path.name for path in tmp_path.iterdir()] == ["a.yaml"]


def start(*arguments: str, processes: int, by: Sequence[str] = ()) -> psutil.Popen:
    with all_signals_heard():
        return psutil.Popen(
            [*by, str(ROOT / "launch.sh"), *arguments],
            cwd=ROOT,
            env=environment(1) | {"NPROC": str(processes)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )


def signal_when(
    started: psutil.Popen,
    is_so: Callable[[], bool],
    number: signal.Signals,
    to_group: bool = False,
    lives_on: bool = False,
) -> Ended:
    """How a launcher ended that got a signal as soon as something was so; none of its programs outlives it for long.

    With `lives_on` it must not end by it, and gets a SIGTERM later.
    """
    deadline = time.monotonic() + START_SECONDS
    while not is_so():
        assert started.poll() is None, started.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    programs = started.children(recursive=True)
    assert programs
    if to_group:
        os.killpg(started.pid, number)
    else:
        started.send_signal(number)
    if lives_on:
        with pytest.raises(psutil.TimeoutExpired):
            started.wait(1.5)
        started.terminate()
    out, err = started.communicate(timeout=START_SECONDS)
    _, alive = psutil.wait_procs(programs, timeout=0 if number != signal.SIGKILL else START_SECONDS)
    assert not alive
    return Ended(started.returncode, out, err)


STOPS = [
    pytest.param(1, "SIGTERM", False, 75, marks=pytest.mark.matrix),
    pytest.param(2, "SIGTERM", False, 75, marks=pytest.mark.long),
    pytest.param(2, "SIGKILL", False, -9, marks=pytest.mark.matrix),
    pytest.param(1, "SIGINT", True, 75, marks=pytest.mark.matrix),  # a person presses Ctrl-C
    pytest.param(1, "SIGHUP", True, 75, marks=pytest.mark.matrix),  # a terminal is closed
    pytest.param(2, "SIGUSR1", True, 75, marks=pytest.mark.matrix),  # Slurm warns
]


@pytest.mark.parametrize(("processes", "name", "to_group", "code"), STOPS)
def test_a_signal_for_the_launcher_saves_and_ends_all(
    train: Trainer, processes: int, name: str, to_group: bool, code: int
):
    arguments = train.arguments("run", steps=10_000, eval__every=0)
    ended = signal_when(
        start(*arguments, processes=processes), lambda: logged(1)(train.folder / "run"), signal.Signals[name], to_group
    )
    assert (ended.code, ended.err) == (code, "")
    status = json.loads((train.folder / "run/status.json").read_text())
    assert (status["state"], status["exit_code"]) == ("preempted", 75)
    assert (train.folder / "run/checkpoints" / status["last_checkpoint"]).is_dir()


@pytest.mark.long
def test_a_rank_that_is_killed_is_told_and_the_others_end(train: Trainer):
    started = start(*train.arguments("run", steps=10_000, eval__every=0), processes=2)

    def killed() -> bool:
        if logged(1)(train.folder / "run"):
            ranks = [one for one in started.children(recursive=True) if one.environ().get("RANK") == "1"]
            ranks[0].kill()
            return True
        return False

    deadline = time.monotonic() + START_SECONDS
    while not killed():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    _, err = started.communicate(timeout=START_SECONDS)
    assert started.returncode == 137, err
    of_rank, of_launcher = err.splitlines()
    assert of_rank.startswith("error: another process ")
    assert of_launcher.startswith("error: a process was ended by SIGKILL")
    status = json.loads((train.folder / "run/status.json").read_text())
    assert (status["state"], status["exit_code"]) == ("failed", 1)


PROGRAM = """
import os, signal, sys, time
from pathlib import Path
from whisper_ft.runtime.parent import end_with_parent

end_with_parent()
rank, how, folder = int(os.environ.get("RANK", "0")), sys.argv[1], Path(sys.argv[2])
(folder / str(rank)).touch()
if how == "wait" or rank != int(os.environ.get("WORLD_SIZE", "1")) - 1:
    time.sleep(600)
if how == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
sys.exit(int(how))
"""


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """A program whose last rank ends as told while the others wait; it touches a file when it runs."""
    (tmp_path / "program.py").write_text(PROGRAM)
    return tmp_path / "program.py"


@pytest.mark.parametrize("processes", ["1", "2"])
@pytest.mark.parametrize(
    ("how", "code", "told"),
    [("4", 4, ""), ("killed", 137, "error: a process was ended by SIGKILL: did memory run out?\n")],
)
def test_the_exit_code_is_that_of_the_program(program: Path, processes: str, how: str, code: int, told: str):
    ended = launch_quickly(str(program), how, str(program.parent), NPROC=processes)
    assert (ended.code, ended.err) == (code, told)


@pytest.mark.long
@pytest.mark.parametrize("processes", [pytest.param(1, marks=pytest.mark.matrix), 2])
def test_no_program_outlives_a_launcher_that_is_killed(program: Path, processes: int):
    files = [program.parent / str(rank) for rank in range(processes)]
    started = start(str(program), "wait", str(program.parent), processes=processes)
    assert signal_when(started, lambda: all(file.exists() for file in files), signal.SIGKILL).code == -9


@pytest.mark.long
def test_a_closed_terminal_ends_nothing_under_nohup(program: Path):
    """By itself torchrun would end: it takes the signal over, ignored or not."""
    started = start(str(program), "wait", str(program.parent), processes=2, by=["nohup"])
    ended = signal_when(started, lambda: (program.parent / "1").exists(), signal.SIGHUP, to_group=True, lives_on=True)
    assert ended.code == 143, "of the SIGTERM that came later"


def test_what_other_launchers_left_is_not_believed(program: Path, tmp_path: Path):
    """Numbers of processes, a temporary folder that is gone, and what `accelerate config` wrote at home."""
    (tmp_path / "accelerate").mkdir()
    (tmp_path / "accelerate/default_config.yaml").write_text("distributed_type: MULTI_GPU\nnum_processes: 2\n")
    left = {"WORLD_SIZE": "2", "RANK": "1", "PMI_SIZE": "2", "PMI_RANK": "1", "ACCELERATE_MIXED_PRECISION": "fp16"}
    ended = launch_quickly(str(program), "0", str(tmp_path), TMPDIR="/nowhere", HF_HOME=str(tmp_path), **left)
    assert ended.code == 0, ended.err
    ranks, temporary = ended.err.splitlines()
    assert ranks.startswith("note: ")
    assert "RANK=1 WORLD_SIZE=2" in ranks
    assert temporary.startswith("note: ")
    assert "TMPDIR=/nowhere" in temporary
    assert [path.name for path in tmp_path.iterdir() if path.name in "01"] == ["0"]


SHOWS = """
import json, os, sys
from pathlib import Path

seen = {"arguments": sys.argv[2:]} | dict(os.environ)
Path(sys.argv[1], os.environ.get("RANK", "0")).write_text(json.dumps(seen))
"""


def test_the_processes_get_the_gpus_and_the_program_its_arguments(tmp_path: Path):
    """On a machine whose nvidia-smi is played: three GPUs."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/nvidia-smi").write_text('#!/bin/sh\nfor n in 0 1 2; do echo "GPU $n: NVIDIA H200"; done\n')
    (tmp_path / "bin/nvidia-smi").chmod(0o755)
    (tmp_path / "program.py").write_text(SHOWS)
    arguments = ["--gpus", "0,2", "--lr", "1", "--", "--gpus", "7", "--"]
    variables = {"PATH": f"{tmp_path}/bin:{environment(1)['PATH']}", "ACCELERATE_USE_CPU": ""}
    ended = launch_quickly(str(tmp_path / "program.py"), str(tmp_path), *arguments, **variables)
    assert ended.code == 0, ended.err
    for rank in ("0", "1"):
        seen = json.loads((tmp_path / rank).read_text())
        assert seen["arguments"] == ["--lr", "1", "--gpus", "7", "--"]
        assert (seen["CUDA_VISIBLE_DEVICES"], seen["LOCAL_RANK"], seen["WORLD_SIZE"]) == ("0,2", rank, "2")
        assert seen["ACCELERATE_MIXED_PRECISION"] == "no"
        assert seen["ACCELERATE_USE_CPU"] == ""


@pytest.mark.matrix
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
