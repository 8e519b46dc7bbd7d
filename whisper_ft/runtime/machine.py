"""Facts about a machine that decide how many processes are launched: GPUs, cores, and whether torch has CUDA."""

import os
import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from runpy import run_path
from shutil import which


@dataclass(frozen=True)
class Machine:
    """Facts about a machine that a launch depends on."""

    gpus: tuple[str, ...] = ()
    """Numbers of the GPUs that `nvidia-smi -L` lists."""
    gpu_problem: str = ""
    """First line of nvidia-smi's error, if it is installed and fails."""
    cores: int = 1
    torch_has_cuda: bool = True
    first_host: Callable[[str], str] = lambda hosts: hosts
    """Function that returns the first host of a Slurm list such as node[1-9]."""


def this_machine() -> Machine:
    """Return the facts about this machine. torch is not imported, because its import would take seconds.

    Without GPUs, `torch_has_cuda` is True and torch is not examined.
    """
    gpus, problem = (), ""
    if which("nvidia-smi"):
        done = subprocess.run(["nvidia-smi", "-L"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
        text = done.stdout.decode(errors="replace")
        if done.returncode == 0:
            gpus = tuple(re.findall(r"^GPU (\d+):", text, re.MULTILINE))  # the lines of slices (MIG) are indented
        else:
            problem = text.partition("\n")[0] or f"exit code {done.returncode}"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Machine(gpus, problem, cores, not gpus or _torch_has_cuda(), _first_host)


def _torch_has_cuda() -> bool:
    torch = find_spec("torch")
    if torch is None or torch.origin is None:
        return False
    return run_path(str(Path(torch.origin).with_name("version.py")))["cuda"] is not None


def _first_host(hosts: str) -> str:
    done = subprocess.run(["scontrol", "show", "hostnames", hosts], stdout=subprocess.PIPE, text=True, check=False)
    return done.stdout.partition("\n")[0]
