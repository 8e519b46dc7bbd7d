"""Plan of a launch: GPUs, processes, machines and variables, from arguments, environment and machine."""

import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.commands.config.config_args import load_config_from_file

from tests.conftest import ROOT, environment
from whisper_ft.runtime.errors import UsageError
from whisper_ft.runtime.launch_plan import LaunchPlan, plan_launch
from whisper_ft.runtime.machine import Machine, this_machine

CONFIGURATIONS = [ROOT / "accelerate_config.yaml", *sorted((ROOT / "configs/accelerate").glob("*.yaml"))]
SHOWS = """
import os, sys
from pathlib import Path

Path(sys.argv[1], os.environ.get("RANK", "0")).touch()
"""


def machine(gpus: int, **facts: Any) -> Machine:
    return Machine(**{"gpus": tuple(map(str, range(gpus))), "cores": 4} | facts)


def plan(arguments: str = "", there: Machine | None = None, notes: list[str] | None = None, **env: str) -> LaunchPlan:
    """The plan of a launch on a machine, by default without GPUs."""
    return plan_launch(
        shlex.split(arguments), env, there or machine(0), ROOT, [].append if notes is None else notes.append
    )


ALL = "--config_file {root}/configs/accelerate/several_gpus.yaml --num_processes {n} {root}/train.py --steps 3"
ONE = "--config_file {root}/configs/accelerate/one_gpu.yaml --num_processes 1 {root}/train.py --steps 3"
CPU = "--config_file {root}/accelerate_config.yaml --num_processes 1 {root}/train.py --steps 3"
TWO_ON_CPU = "--config_file {root}/configs/accelerate/cpu_processes.yaml --num_processes 2 {root}/train.py --steps 3"
ORDER = "CUDA_DEVICE_ORDER=PCI_BUS_ID "


@pytest.mark.parametrize(
    ("gpus", "arguments", "variables", "shown"),
    [
        (3, "", {}, ALL.replace("{n}", "3")),
        (1, "", {}, ONE),
        (3, "--gpus 0,2", {}, f"CUDA_VISIBLE_DEVICES=0,2 {ORDER}" + ALL.replace("{n}", "2")),
        (3, "--gpus=2", {}, f"CUDA_VISIBLE_DEVICES=2 {ORDER}" + ONE),
        (3, "", {"NPROC": "2"}, ALL.replace("{n}", "2")),
        (4, "", {"CUDA_VISIBLE_DEVICES": "1,3,-1,2"}, "CUDA_VISIBLE_DEVICES=1,3,-1,2 " + ALL.replace("{n}", "2")),
        (4, "", {"CUDA_VISIBLE_DEVICES": "GPU-1a7f"}, "CUDA_VISIBLE_DEVICES=GPU-1a7f " + ONE),
        (4, "--gpus 3", {"CUDA_VISIBLE_DEVICES": "1,3", "NPROC": "1"}, f"CUDA_VISIBLE_DEVICES=3 {ORDER}" + ONE),
        (4, "", {"CUDA_VISIBLE_DEVICES": ""}, "CUDA_VISIBLE_DEVICES= ACCELERATE_USE_CPU=true OMP_NUM_THREADS=4 " + CPU),
        (0, "", {}, "ACCELERATE_USE_CPU=true OMP_NUM_THREADS=4 " + CPU),
        (0, "", {"NPROC": "2"}, "ACCELERATE_USE_CPU=true OMP_NUM_THREADS=2 " + TWO_ON_CPU),
        (0, "", {"NPROC": "2", "OMP_NUM_THREADS": "1"}, "ACCELERATE_USE_CPU=true OMP_NUM_THREADS=1 " + TWO_ON_CPU),
    ],
)
def test_every_visible_gpu_has_a_process_unless_others_are_named(
    gpus: int, arguments: str, variables: dict[str, str], shown: str
):
    notes: list[str] = []
    made = plan(f"--dry_run --steps 3 {arguments}", machine(gpus), notes, **variables)
    assert (made.dry_run, notes) == (True, [])
    assert shlex.split(str(made).replace("accelerate launch ", "")) == shown.replace("{root}", str(ROOT)).split()


@pytest.mark.parametrize(
    ("gpus", "arguments", "variables", "facts"),
    [
        (2, "--gpus 0,2", {}, ["--gpus 0,2", "GPU 2", "0 1"]),
        (2, "--gpus 1,1", {}, ["--gpus 1,1", "GPU 1"]),
        (2, "--gpus all", {}, ["--gpus all", "--gpus 0,2"]),
        (2, "--gpus", {}, ["--gpus:", "--gpus 0,2"]),
        (2, "--gpus 0, --steps 3", {}, ["--gpus 0,:"]),
        (2, "--gpus 0 --gpus 1", {}, ["twice", "--gpus 0,2"]),
        (0, "--gpus 0", {}, ["--gpus 0", "nvidia-smi"]),
        (2, "--gpus 0,1", {"NPROC": "3"}, ["NPROC=3", "--gpus 0,1"]),
        (2, "", {"NPROC": "3"}, ["NPROC=3", "2", "ACCELERATE_USE_CPU=true"]),
        (2, "--gpus 0", {"CUDA_VISIBLE_DEVICES": "1"}, ["GPU 0", "CUDA_VISIBLE_DEVICES=1"]),
        (2, "--gpus 0", {"CUDA_VISIBLE_DEVICES": ""}, ["--gpus 0", "CUDA_VISIBLE_DEVICES"]),
        (2, "--gpus 0", {"ACCELERATE_CONFIG": "nowhere"}, ["ACCELERATE_CONFIG=nowhere"]),
        (2, "--gpus 0", {"ACCELERATE_CONFIG": "README.md"}, ["ACCELERATE_CONFIG=README.md", "--gpus"]),
        (0, "", {"NPROC": "2", "ACCELERATE_CONFIG": "README.md"}, ["ACCELERATE_CONFIG=README.md", "NPROC"]),
        (0, "", {"NPROC": "0"}, ["NPROC=0"]),
        (0, "", {"NPROC": "two"}, ["NPROC=two"]),
        (0, "", {"NPROC": "-1"}, ["NPROC=-1"]),
        (0, "", {"TORCHELASTIC_RUN_ID": "none"}, ["torchrun"]),
        (0, "", {"OMPI_COMM_WORLD_LOCAL_SIZE": "2"}, ["mpirun"]),
        (0, "", {"SLURM_STEP_NUM_TASKS": "8", "SLURM_STEP_NUM_NODES": "2"}, ["8 tasks", "--ntasks-per-node=1"]),
        (0, "", {"NODES": "2"}, ["NODES=2", "NODE_RANK (0 to 1", "MASTER_ADDR"]),
        (0, "", {"NNODES": "2", "NODE_RANK": "1"}, ["NODES=2: missing: MASTER_ADDR"]),
        (0, "", {"NODES": "2", "NODE_RANK": "2", "MASTER_ADDR": "a"}, ["NODE_RANK=2", "0 to 1"]),
        (0, "", {"NODES": "two"}, ["NODES=two"]),
        (0, "", {"NODE_RANK": "1"}, ["NODE_RANK=1", "NODES"]),
        (0, "", {"NODES": "2", "NODE_RANK": "0", "MASTER_ADDR": "a", "MASTER_PORT": "any"}, ["MASTER_PORT=any"]),
        (0, "", {"NODES": "2", "NODE_RANK": "0", "MASTER_ADDR": "a", "MASTER_PORT": "65536"}, ["MASTER_PORT=65536"]),
        (0, "", {"NODES": "2", "NODE_RANK": "0", "MASTER_ADDR": "a", "JOIN_SECONDS": "1.5"}, ["JOIN_SECONDS=1.5"]),
    ],
)
def test_a_launch_that_cannot_work_is_refused_in_one_line(
    gpus: int, arguments: str, variables: dict[str, str], facts: list[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(ROOT)
    with pytest.raises(UsageError) as refused:
        plan(arguments, machine(gpus), **variables)
    message = str(refused.value)
    assert "\n" not in message
    assert [fact for fact in facts if fact not in message] == []


@pytest.mark.parametrize(
    "variables",
    [
        "NODES=3 NODE_RANK=2 MASTER_ADDR=node1 MASTER_PORT=29500",
        "NNODES=3 NODE_RANK=2 MASTER_ADDR=node1",
        "SLURM_STEP_NUM_NODES=3 SLURM_STEP_NUM_TASKS=3 SLURM_NODEID=2 MASTER_ADDR=node1",
        "SLURM_STEP_NUM_NODES=3 SLURM_STEP_NUM_TASKS=3 SLURM_NODEID=2 SLURM_STEP_NODELIST=node[1-9]",
    ],
)
def test_ours_torchruns_and_slurms_names_for_machines_mean_the_same(variables: str):
    there = machine(0, first_host=lambda hosts: {"node[1-9]": "node1"}[hosts])
    options = " ".join(plan("", there, **dict(text.split("=") for text in variables.split()), NPROC="4").options)
    machines = "--num_machines 3 --machine_rank 2 --main_process_ip node1 --main_process_port 29500"
    assert f"several_nodes.yaml --num_processes 12 {machines} --rdzv_conf timeout=600" in options


def test_variables_of_other_launchers_are_removed_with_a_note(tmp_path: Path):
    notes: list[str] = []
    left = {"WORLD_SIZE": "2", "RANK": "1", "PMI_SIZE": "2", "PMI_RANK": "1", "OMPI_COMM_WORLD_RANK": "0"}
    made = plan("", None, notes, **left, TMPDIR="/nowhere", HOME="/here")
    assert {*left, "TMPDIR"} & set(made.environment) == set()
    assert made.environment["HOME"] == "/here"
    assert [fact in note for fact, note in zip(("RANK=1 WORLD_SIZE=2", "TMPDIR=/nowhere"), notes, strict=True)]
    notes.clear()
    assert plan("", None, notes, TMPDIR=str(tmp_path), PMI_RANK="0").environment["TMPDIR"] == str(tmp_path)
    assert notes == [], "every task of Slurm has PMI_RANK"


def test_idle_gpus_are_reported():
    notes: list[str] = []
    on_cpu = plan("", machine(2), notes, ACCELERATE_USE_CPU="true", NPROC="2")
    assert "configs/accelerate/cpu_processes.yaml --num_processes 2" in str(on_cpu)
    assert "--cpu" in plan("", machine(2), notes, ACCELERATE_USE_CPU="true").options
    broken = plan("", machine(0, gpu_problem="NVIDIA-SMI has failed."), notes)
    assert "--num_processes 1 " in str(broken)
    plan("", machine(1, torch_has_cuda=False), notes)
    facts = ("ACCELERATE_USE_CPU=true", "ACCELERATE_USE_CPU=true", "NVIDIA-SMI has failed.", "CUDA")
    assert all(fact in note for fact, note in zip(facts, notes, strict=True))


def test_the_program_is_found_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.py").write_text("print('not this one')")
    (tmp_path / "mine.py").touch()
    assert plan("--steps 3").program == str(ROOT / "train.py"), "a train.py of the user's is not run by accident"
    assert plan("evaluate.py --model x").program == str(ROOT / "evaluate.py")
    assert plan("train.py --steps 3").program == "train.py", "unless it is named"
    mine = plan("mine.py --gpus 0,1 --lr 1 -- --gpus 7 --", machine(2))
    assert (mine.program, mine.arguments) == ("mine.py", ("--lr", "1", "--gpus", "7", "--"))


def test_a_command_whose_processes_share_its_work_is_started_as_a_module():
    shared = plan("transcribe runs/x a.wav --to srt", NPROC="2")
    assert (shared.program, shared.arguments) == ("whisper_ft", ("transcribe", "runs/x", "a.wav", "--to", "srt"))
    assert "--module" in shared.options
    assert plan("pseudolabel runs/x --data.path a --out b", NPROC="2").arguments[:2] == ("pseudolabel", "runs/x")
    assert "--module" not in plan("--steps 3").options


def test_a_bare_launch_is_the_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    made = plan()
    assert (made.folder, made.program) == (ROOT, str(ROOT / "train.py"))
    assert made.arguments == ("--config", "configs/demo.yaml")
    assert plan("--steps 3").folder is None


def test_a_configuration_of_the_users_is_used_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").touch()
    made = plan("--steps 3", ACCELERATE_CONFIG="mine.yaml", NODE_RANK="0")
    assert made.options == ("--config_file", str(tmp_path / "mine.yaml"), "--machine_rank", "0")
    assert made.environment["ACCELERATE_CONFIG"] == str(tmp_path / "mine.yaml")
    assert "OMP_NUM_THREADS" not in made.environment, "accelerate shares the cores out by that file"


def test_the_line_shown_reads_back_in_a_shell():
    made = plan("'a b.py' --x 'it''s' ''", None, CUDA_VISIBLE_DEVICES="0, 1")
    words = shlex.split(str(made))
    assert words[0] == "CUDA_VISIBLE_DEVICES=0, 1"
    assert words[words.index("launch") + 1 :] == made.command


@pytest.fixture
def nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An nvidia-smi that is played: two GPUs, each in two slices, which are not GPUs."""
    lines = [f"GPU {n}: NVIDIA H200 (UUID: GPU-{n}a7f)\n  MIG 1g.18gb Device 0: (UUID: MIG-0)" for n in range(2)]
    program = tmp_path / "bin/nvidia-smi"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\ncat <<END\n" + "\n".join(lines) + "\nEND\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    return program


def test_the_gpus_of_a_machine_are_those_of_nvidia_smi(nvidia_smi: Path):
    here = this_machine()
    assert (here.gpus, here.gpu_problem) == (("0", "1"), "")
    assert here.torch_has_cuda == (torch.version.cuda is not None)
    nvidia_smi.write_text("#!/bin/sh\necho 'NVIDIA-SMI has failed. Reboot?'\nexit 9")
    broken = this_machine()
    assert (broken.gpus, broken.gpu_problem) == ((), "NVIDIA-SMI has failed. Reboot?")
    nvidia_smi.unlink()
    assert this_machine().gpu_problem == ""


@pytest.mark.parametrize("file", CONFIGURATIONS, ids=lambda file: file.stem)
def test_a_configuration_says_when_to_use_it_and_nothing_of_training(file: Path):
    assert file.read_text().startswith("# ")
    known = load_config_from_file(str(file))  # accelerate's: refuses keys that it does not know
    assert (known.mixed_precision, known.dynamo_config) == (None, {})
    assert (known.num_processes > 1) == (known.distributed_type == "MULTI_GPU")


@pytest.mark.long
@pytest.mark.parametrize(
    "file",
    [CONFIGURATIONS[0], *(pytest.param(file, marks=pytest.mark.matrix) for file in CONFIGURATIONS[1:])],
    ids=lambda file: file.stem,
)
def test_accelerate_launches_by_a_configuration_alone(file: Path, tmp_path: Path):
    (tmp_path / "program.py").write_text(SHOWS)
    alone = ["--num_machines", "1", "--main_process_port", "0"] if "nodes" in file.stem else []
    argv = ["accelerate", "launch", "--config_file", str(file), *alone, str(tmp_path / "program.py"), str(tmp_path)]
    subprocess.run(argv, env=environment(1), check=True, capture_output=True, timeout=120)
    assert len(list(tmp_path.glob("[0-9]"))) == load_config_from_file(str(file)).num_processes


def test_the_commands_of_the_page_on_launching_can_be_started():
    """On a machine with four GPUs, up to the moment where it would start them."""
    page = (ROOT / "docs/launch.md").read_text(encoding="utf-8")
    commands = [line for block in re.findall(r"```bash\n(.*?)```", page, re.DOTALL) for line in block.splitlines()]
    started = [line for line in commands if "./launch.sh" in line]
    assert len(started) > 10
    for line in started:
        before, arguments = re.sub(r"\s(>.*&|#.*)$", "", line).split("./launch.sh")
        variables = dict(word.split("=") for word in shlex.split(before) if "=" in word)
        if config := variables.get("ACCELERATE_CONFIG"):
            variables["ACCELERATE_CONFIG"] = str(ROOT / config)
        assert "accelerate launch --config_file" in str(plan(arguments, machine(4), **variables)), line
    assert {line.split()[-1] for line in commands if line.startswith("sbatch")} == {"runs/digits"}
