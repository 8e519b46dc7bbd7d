"""Which GPUs launch.sh takes, on a machine whose nvidia-smi is played, and which configuration of accelerate."""

import json
import re
import shlex
import subprocess
from pathlib import Path

import pytest
import torch
from accelerate.commands.config.config_args import load_config_from_file

from tests.conftest import ROOT, Ended, environment

CONFIGURATIONS = [ROOT / "accelerate_config.yaml", *sorted((ROOT / "configs/accelerate").glob("*.yaml"))]
NO_CUDA = "note: torch here is built without CUDA: it uses no GPU; install one with CUDA\n"
SHOWS = """
import json, os, sys
from pathlib import Path

told = {"arguments": sys.argv[2:]} | dict(os.environ)
Path(sys.argv[1], os.environ.get("RANK", "0")).write_text(json.dumps(told))
"""


def nvidia_smi(folder: Path, lines: str) -> dict[str, str]:
    """The variables of a machine where `nvidia-smi -L` is this script, and nothing of GPUs in its environment."""
    (folder / "bin").mkdir()
    (folder / "bin/nvidia-smi").write_text(f"#!/bin/sh\n{lines}")
    (folder / "bin/nvidia-smi").chmod(0o755)
    variables = environment(1)
    for name in ("ACCELERATE_USE_CPU", "NPROC", "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"):
        variables.pop(name, None)
    return variables | {"PATH": f"{folder}/bin:{variables['PATH']}"}


def gpus(count: int) -> str:
    """Each in two slices, which are not GPUs."""
    listed = [f"GPU {number}: NVIDIA H200 (UUID: GPU-{number}a7f)" for number in range(count)]
    return "\n".join(f"echo '{gpu}'; echo '  MIG 1g.18gb Device 0: (UUID: MIG-0)'" for gpu in listed)


def launch(machine: dict[str, str], *arguments: str, **variables: str) -> Ended:
    done = subprocess.run(
        [str(ROOT / "launch.sh"), *arguments], env=machine | variables, capture_output=True, text=True, timeout=120
    )
    noted = "" if torch.version.cuda is None else NO_CUDA
    return Ended(done.returncode, done.stdout, done.stderr.replace(NO_CUDA, noted))


ALL = "--config_file {root}/configs/accelerate/several_gpus.yaml --num_processes {n} {root}/train.py --steps 3"
ONE = "--config_file {root}/configs/accelerate/one_gpu.yaml --num_processes 1 {root}/train.py --steps 3"
CPU = "--config_file {root}/accelerate_config.yaml --num_processes 1 {root}/train.py --steps 3"


@pytest.mark.parametrize(
    ("there", "arguments", "variables", "shown"),
    [
        (3, "", {}, ALL.replace("{n}", "3")),
        (1, "", {}, ONE),
        (3, "--gpus 0,2", {}, "CUDA_VISIBLE_DEVICES=0,2 CUDA_DEVICE_ORDER=PCI_BUS_ID " + ALL.replace("{n}", "2")),
        (3, "--gpus=2", {}, "CUDA_VISIBLE_DEVICES=2 CUDA_DEVICE_ORDER=PCI_BUS_ID " + ONE),
        (3, "", {"NPROC": "2"}, ALL.replace("{n}", "2")),
        (4, "", {"CUDA_VISIBLE_DEVICES": "1,3,-1,2"}, "CUDA_VISIBLE_DEVICES=1,3,-1,2 " + ALL.replace("{n}", "2")),
        (4, "", {"CUDA_VISIBLE_DEVICES": "GPU-1a7f"}, "CUDA_VISIBLE_DEVICES=GPU-1a7f " + ONE),
        (
            4,
            "--gpus 3",
            {"CUDA_VISIBLE_DEVICES": "1,3", "NPROC": "1"},
            "CUDA_VISIBLE_DEVICES=3 CUDA_DEVICE_ORDER=PCI_BUS_ID " + ONE,
        ),
        (
            4,
            "",
            {"CUDA_VISIBLE_DEVICES": ""},
            "CUDA_VISIBLE_DEVICES= ACCELERATE_USE_CPU=true " + CPU,
        ),
        (0, "", {}, "ACCELERATE_USE_CPU=true " + CPU),
    ],
)
def test_every_visible_gpu_has_a_process_unless_others_are_named(
    tmp_path: Path, there: int, arguments: str, variables: dict[str, str], shown: str
):
    ended = launch(nvidia_smi(tmp_path, gpus(there)), "--dry_run", "--steps", "3", *arguments.split(), **variables)
    assert (ended.code, ended.err) == (0, "")
    words = [word for word in shlex.split(ended.out) if not word.startswith("OMP_NUM_THREADS=")]
    assert " ".join(words).replace("accelerate launch ", "") == shown.replace("{root}", str(ROOT))


@pytest.mark.parametrize(
    ("there", "arguments", "variables", "told"),
    [
        (2, "--gpus 0,2", {}, "--gpus 0,2: there is no GPU 2; nvidia-smi -L lists 0 1"),
        (2, "--gpus 1,1", {}, "--gpus 1,1: GPU 1 is named twice"),
        (2, "--gpus all", {}, "--gpus all: numbers are needed, as in --gpus 0,2"),
        (2, "--gpus", {}, "--gpus: numbers are needed, as in --gpus 0,2"),
        (2, "--gpus 0 --gpus 1", {}, "--gpus is given twice; name all GPUs at once, as in --gpus 0,2"),
        (0, "--gpus 0", {}, "--gpus 0: nvidia-smi finds no GPU here; leave --gpus out to train on the CPU"),
        (2, "--gpus 0,1", {"NPROC": "3"}, "NPROC=3 and --gpus 0,1 contradict; leave NPROC out"),
        (2, "", {"NPROC": "3"}, "NPROC=3: a GPU has one process, and 2 can be seen"),
        (2, "--gpus 0", {"CUDA_VISIBLE_DEVICES": "1"}, "--gpus 0: GPU 0 is not in CUDA_VISIBLE_DEVICES=1; unset one"),
        (2, "--gpus 0", {"CUDA_VISIBLE_DEVICES": ""}, "--gpus 0: CUDA_VISIBLE_DEVICES or ACCELERATE_USE_CPU hides all"),
        (2, "--gpus 0", {"ACCELERATE_CONFIG": "nowhere"}, "ACCELERATE_CONFIG=nowhere: there is no such file"),
    ],
)
def test_gpus_that_cannot_be_taken_are_refused_in_one_line(
    tmp_path: Path, there: int, arguments: str, variables: dict[str, str], told: str
):
    ended = launch(nvidia_smi(tmp_path, gpus(there)), "--dry_run", *arguments.split(), **variables)
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith(f"error: {told}")
    assert len(ended.err.splitlines()) == 1


def test_the_processes_get_the_gpus_and_the_program_its_arguments(tmp_path: Path):
    (tmp_path / "program.py").write_text(SHOWS)
    given = ["--gpus", "0,2", "--lr", "1", "--", "--gpus", "7", "--"]
    ended = launch(nvidia_smi(tmp_path, gpus(3)), str(tmp_path / "program.py"), str(tmp_path), *given)
    assert (ended.code, ended.err) == (0, "")
    started = [json.loads((tmp_path / rank).read_text()) for rank in ("0", "1")]
    for rank, one in enumerate(started):
        assert one["arguments"] == ["--lr", "1", "--gpus", "7", "--"]
        assert (one["CUDA_VISIBLE_DEVICES"], one["LOCAL_RANK"], one["WORLD_SIZE"]) == ("0,2", str(rank), "2")
        assert one["ACCELERATE_MIXED_PRECISION"] == "no"
        assert "ACCELERATE_USE_CPU" not in one


def test_gpus_that_are_left_idle_are_told(tmp_path: Path):
    machine = nvidia_smi(tmp_path, gpus(2))
    on_cpu = launch(machine, "--dry_run", ACCELERATE_USE_CPU="true", NPROC="2")
    assert on_cpu.err == "note: ACCELERATE_USE_CPU=true: on the CPU; GPUs that could be used: 2\n"
    assert "configs/accelerate/cpu_processes.yaml --num_processes 2" in on_cpu.out
    (tmp_path / "bin/nvidia-smi").write_text("#!/bin/sh\necho 'NVIDIA-SMI has failed. Reboot?'\nexit 9")
    broken = launch(machine, "--dry_run")
    assert broken.err == "note: nvidia-smi finds no GPU that works: NVIDIA-SMI has failed. Reboot?\n"
    assert "--num_processes 1 " in broken.out


@pytest.mark.skipif(torch.version.cuda is not None, reason="the torch of this environment has CUDA")
def test_a_torch_without_cuda_on_a_machine_with_gpus_is_told(tmp_path: Path):
    machine = nvidia_smi(tmp_path, gpus(1))
    done = subprocess.run(
        [str(ROOT / "launch.sh"), "--dry_run"], env=machine, capture_output=True, text=True, check=True
    )
    assert done.stderr == NO_CUDA


@pytest.mark.parametrize("file", CONFIGURATIONS, ids=lambda file: file.stem)
def test_a_configuration_says_when_to_use_it_and_nothing_of_training(file: Path):
    assert file.read_text().startswith("# ")
    known = load_config_from_file(str(file))  # accelerate's: refuses keys that it does not know
    assert (known.mixed_precision, known.dynamo_config) == (None, {})
    assert (known.num_processes > 1) == (known.distributed_type == "MULTI_GPU")


@pytest.mark.long
@pytest.mark.parametrize("file", CONFIGURATIONS, ids=lambda file: file.stem)
def test_accelerate_launches_by_a_configuration_alone(file: Path, tmp_path: Path):
    (tmp_path / "program.py").write_text(SHOWS)
    alone = ["--num_machines", "1", "--main_process_port", "0"] if "nodes" in file.stem else []
    argv = ["accelerate", "launch", "--config_file", str(file), *alone, str(tmp_path / "program.py"), str(tmp_path)]
    subprocess.run(argv, env=environment(1), check=True, capture_output=True, timeout=120)
    assert len(list(tmp_path.glob("[0-9]"))) == load_config_from_file(str(file)).num_processes


def test_a_configuration_of_the_users_is_used_as_it_is(tmp_path: Path):
    mine = tmp_path / "mine.yaml"
    mine.write_text(
        (ROOT / "configs/accelerate/cpu_processes.yaml").read_text().replace("num_processes: 2", "num_processes: 3")
    )
    machine = nvidia_smi(tmp_path, gpus(0))
    ended = launch(machine, "--dry_run", ACCELERATE_CONFIG=str(mine), NODE_RANK="0")
    assert f"accelerate launch --config_file {mine} --machine_rank 0 {ROOT}/train.py" in ended.out
    refused = launch(machine, ACCELERATE_CONFIG=str(mine), NPROC="2")
    assert (refused.code, refused.err.split(": ")[1]) == (
        2,
        f"ACCELERATE_CONFIG={mine} counts the processes; leave out NPROC, NODES and --gpus\n",
    )


def test_the_commands_of_the_page_on_launching_can_be_started(tmp_path: Path):
    """On a machine with four GPUs, up to the moment where it would start them."""
    machine = nvidia_smi(tmp_path, gpus(4))
    page = (ROOT / "docs/launch.md").read_text(encoding="utf-8")
    commands = [line for block in re.findall(r"```bash\n(.*?)```", page, re.DOTALL) for line in block.splitlines()]
    started = [line for line in commands if "./launch.sh" in line]
    assert len(started) > 10
    for line in started:
        shown = re.sub(r"\s(>.*&|#.*)$", "", line).replace("./launch.sh", "./launch.sh --dry_run").strip()
        done = subprocess.run(shown, shell=True, cwd=ROOT, env=machine, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr.count("error")) == (0, 0), f"{line}\n{done.stderr}"
        assert "accelerate launch --config_file" in done.stdout
    assert {line.split()[-1] for line in commands if line.startswith("sbatch")} == {"runs/digits"}
