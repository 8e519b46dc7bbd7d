"""Plan of a launch: the command line of `accelerate launch`, made from arguments, environment and machine.

`plan_launch` starts nothing and gets the environment as an argument, so every rule here is tested as a function.
"""

import os
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from whisper_ft.runtime.errors import UsageError
from whisper_ft.runtime.machine import Machine

OWN_NAMES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")  # set by the launcher for each of its processes
MPI_NAMES = (
    "PMI_RANK",  # this and PMI_SIZE are set in every task of Slurm
    "PMI_SIZE",
    "OMPI_COMM_WORLD_RANK",
    "OMPI_COMM_WORLD_SIZE",
    "OMPI_COMM_WORLD_LOCAL_RANK",
    "OMPI_COMM_WORLD_LOCAL_SIZE",
)
SHOWN_NAMES = ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "ACCELERATE_USE_CPU", "OMP_NUM_THREADS")
PACKAGE = "whisper_ft"
SHARING_COMMANDS = ("transcribe", "pseudolabel")  # commands of the package whose work several processes share
DEFAULT_PORT = "29500"  # torchrun's: the machines of a run must agree on a port before they meet
DEFAULT_JOIN_SECONDS = "600"  # time that one machine waits for the others at the start
SPIN_COUNT = "1000"  # iterations that a waiting OpenMP thread spins; see `_use_cpu`


@dataclass(frozen=True)
class LaunchPlan:
    """Everything that is needed to start the programs of a run."""

    options: tuple[str, ...]
    """Options of `accelerate launch`."""
    program: str
    arguments: tuple[str, ...]
    """Arguments of the program."""
    environment: dict[str, str]
    """All environment variables of the launcher and of the programs."""
    folder: Path | None = None
    """Folder to start in; None for the current folder."""
    dry_run: bool = False

    @property
    def command(self) -> list[str]:
        """Arguments of `accelerate launch`."""
        return [*self.options, self.program, *self.arguments]

    def __str__(self) -> str:
        """Return a shell command of one line for the same launch, to be run in `folder`.

        The only variables in it are those of SHOWN_NAMES. It differs from this launcher in signals and exit codes, too.
        """
        variables = [f"{name}={self.environment[name]}" for name in SHOWN_NAMES if name in self.environment]
        assigned = [name + "=" + shlex.quote(value) for name, _, value in (text.partition("=") for text in variables)]
        return " ".join([*assigned, "accelerate launch", shlex.join(self.command)])


def plan_launch(
    arguments: Sequence[str], environment: Mapping[str, str], machine: Machine, root: Path, note: Callable[[str], None]
) -> LaunchPlan:
    """Plan the launch for a command line of launch.sh.

    The program is the first argument if it ends in .py, or the package if it is one of SHARING_COMMANDS, else train.py.
    Without an argument, train.py trains the demo.

    Parameters
        environment: variables of the launcher; not changed.
        root: folder that holds train.py and the configurations of accelerate.
        note: called with each remark that the user should read.

    Raises UsageError for a launch that cannot work.
    """
    env = dict(environment)
    _clear(env, note)
    gpus, dry_run, rest = _own_arguments(arguments)
    visible = _visible_gpus(env, machine, note)
    on_cpu = _is_cpu_asked(env)
    if on_cpu and visible:
        note(f"ACCELERATE_USE_CPU={env['ACCELERATE_USE_CPU']}: on the CPU; GPUs that could be used: {visible}")
    visible = 0 if on_cpu else visible
    if gpus is not None:
        visible = _choose_gpus(gpus, env, machine, visible)
    processes = _processes(env, gpus, visible)
    nodes = _nodes(env, machine)
    options = _options(env, root, gpus, visible, on_cpu, processes, nodes)
    folder = None
    if not rest:
        folder, rest = root, ["--config", "configs/demo.yaml"]
    program = str(root / "train.py")
    if rest[0] in SHARING_COMMANDS:
        program = PACKAGE
        options.append("--module")
    elif rest[0].endswith(".py"):
        program, *rest = rest
        if not Path(program).is_file():
            program = str(root / Path(program).name)
    if visible == 0:
        _use_cpu(env, machine.cores, processes)
    elif not machine.torch_has_cuda:
        note("torch here is built without CUDA: it uses no GPU; install one with CUDA")
    return LaunchPlan(tuple(options), program, tuple(rest), env, folder, dry_run)


def _clear(env: dict[str, str], note: Callable[[str], None]) -> None:
    """Remove the environment variables of other launchers, because the programs would use them.

    Raises UsageError if another launcher started this one.
    """
    if env.get("TORCHELASTIC_RUN_ID") or _number(env.get("OMPI_COMM_WORLD_LOCAL_SIZE")) > 1:
        raise UsageError(
            "launch.sh was started by torchrun, accelerate launch or mpirun; start it by itself, once on each machine"
        )
    tasks = _number(env.get("SLURM_STEP_NUM_TASKS"))
    if tasks > _number(env.get("SLURM_STEP_NUM_NODES")):
        raise UsageError(f"srun starts {tasks} tasks; one on each machine is needed: srun --ntasks-per-node=1")
    if left := "".join(f" {name}={env[name]}" for name in OWN_NAMES if env.get(name)):
        note(f"in the environment:{left}; not used, launch.sh numbers its processes itself")
    for name in (*OWN_NAMES, *MPI_NAMES):
        env.pop(name, None)
    temporary = env.get("TMPDIR")
    if temporary and not (os.path.isdir(temporary) and os.access(temporary, os.W_OK)):
        note(f"TMPDIR={temporary} is not a writable folder; not used")
        del env["TMPDIR"]


def _number(text: str | None) -> int:
    """Read a count from a variable of another launcher; 1 if it is not set or no number."""
    return int(text) if text and text.isdecimal() else 1


def _is_count(text: str) -> bool:
    return re.fullmatch(r"[1-9][0-9]{0,4}", text) is not None


def _own_arguments(arguments: Sequence[str]) -> tuple[list[str] | None, bool, list[str]]:
    """Split the arguments: GPUs named by --gpus (None without it), presence of --dry_run, and all other arguments.

    Arguments after `--` belong to the program. Raises UsageError if --gpus is given twice or without numbers.
    """
    gpus: str | None = None
    dry_run, rest, waiting = False, list[str](), list(arguments)
    while waiting:
        argument = waiting.pop(0)
        if argument == "--gpus" or argument.startswith("--gpus="):
            if gpus is not None:
                raise UsageError("--gpus is given twice; name all GPUs at once, as in --gpus 0,2")
            gpus = argument.partition("=")[2] if "=" in argument else waiting.pop(0) if waiting else ""
            if not re.fullmatch(r"[0-9]+(,[0-9]+)*", gpus):
                raise UsageError(f"--gpus{' ' * bool(gpus)}{gpus}: numbers are needed, as in --gpus 0,2")
        elif argument == "--dry_run":
            dry_run = True
        elif argument == "--":
            rest += waiting
            break
        else:
            rest.append(argument)
    return None if gpus is None else gpus.split(","), dry_run, rest


def _visible_gpus(env: Mapping[str, str], machine: Machine, note: Callable[[str], None]) -> int:
    """Count the GPUs that the programs would see.

    CUDA reads CUDA_VISIBLE_DEVICES up to the first entry that names no GPU, such as -1. UUIDs are not checked.
    """
    if machine.gpu_problem:
        note(f"nvidia-smi finds no GPU that works: {machine.gpu_problem}")
    visible = 0
    for entry in _listed_gpus(env, machine):
        if not (machine.gpus if entry.startswith(("GPU-", "MIG-")) else entry in machine.gpus):
            break
        visible += 1
    return visible


def _listed_gpus(env: Mapping[str, str], machine: Machine) -> list[str]:
    """Return the entries of CUDA_VISIBLE_DEVICES, or the numbers of all GPUs if that variable is not set."""
    return env.get("CUDA_VISIBLE_DEVICES", ",".join(machine.gpus)).replace(",", " ").split()


def _is_cpu_asked(env: Mapping[str, str]) -> bool:
    return env.get("ACCELERATE_USE_CPU", "") in ("1", "true", "True", "TRUE", "yes", "Yes")


def _choose_gpus(gpus: list[str], env: dict[str, str], machine: Machine, visible: int) -> int:
    """Set `env` so that the programs see only the GPUs named by --gpus, and return their number.

    Raises UsageError for a GPU that cannot be used or is named twice.
    """
    option = f"--gpus {','.join(gpus)}"
    if not machine.gpus:
        raise UsageError(f"{option}: nvidia-smi finds no GPU here; leave --gpus out to train on the CPU")
    if not visible:
        raise UsageError(f"{option}: CUDA_VISIBLE_DEVICES or ACCELERATE_USE_CPU hides all GPUs; unset it")
    for place, gpu in enumerate(gpus):
        if gpu not in machine.gpus:
            raise UsageError(f"{option}: there is no GPU {gpu}; nvidia-smi -L lists {' '.join(machine.gpus)}")
        if gpu in gpus[:place]:
            raise UsageError(f"{option}: GPU {gpu} is named twice")
        if gpu not in _listed_gpus(env, machine):
            hidden = f"CUDA_VISIBLE_DEVICES={env['CUDA_VISIBLE_DEVICES']}"
            raise UsageError(f"{option}: GPU {gpu} is not in {hidden}; unset one of the two")
    env["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
    env["CUDA_DEVICE_ORDER"] = env.get("CUDA_DEVICE_ORDER") or "PCI_BUS_ID"  # the numbers of nvidia-smi
    return len(gpus)


def _processes(env: Mapping[str, str], gpus: list[str] | None, visible: int) -> int:
    """Return the number of processes on this machine: NPROC, or one for each visible GPU, or one on the CPU.

    Raises UsageError if NPROC is no count, contradicts --gpus, or is above the number of visible GPUs.
    """
    text = env.get("NPROC") or str(visible or 1)
    if not _is_count(text):
        raise UsageError(f"NPROC={text}: a number of processes from 1 up is needed")
    count = int(text)
    if gpus is not None and count != visible:
        raise UsageError(f"NPROC={text} and --gpus {','.join(gpus)} contradict; leave NPROC out")
    if visible and count > visible:
        raise UsageError(
            f"NPROC={text}: a GPU has one process, and {visible} can be seen; ACCELERATE_USE_CPU=true would use the CPU"
        )
    return count


@dataclass(frozen=True)
class Nodes:
    """The machines of a run. All fields but `count` are texts for the options of `accelerate launch`."""

    count: int
    rank: str
    """Number of this machine, from 0. It may be empty for one machine."""
    master: str = ""
    """Address of machine 0. It is empty for one machine."""
    port: str = DEFAULT_PORT
    join_seconds: str = DEFAULT_JOIN_SECONDS
    """Seconds that a machine waits for the others at the start."""


def _nodes(env: Mapping[str, str], machine: Machine) -> Nodes:
    """Read the machines of a run from our variables, from torchrun's, or from those of a task that srun started.

    Raises UsageError if one of the variables is missing or wrong.
    """
    text = env.get("NODES") or env.get("NNODES") or env.get("SLURM_STEP_NUM_NODES") or "1"
    rank, master = env.get("NODE_RANK", ""), env.get("MASTER_ADDR", "")
    if not _is_count(text):
        raise UsageError(f"NODES={text}: a number of machines from 1 up is needed")
    count = int(text)
    if count == 1:
        if rank not in ("", "0"):
            raise UsageError(f"NODE_RANK={rank}: NODES is missing, the number of machines")
        return Nodes(1, rank)
    rank = rank or env.get("SLURM_NODEID", "")
    if not master and env.get("SLURM_STEP_NODELIST"):
        master = machine.first_host(env["SLURM_STEP_NODELIST"])
    missing = [] if rank else [f"NODE_RANK (0 to {count - 1}, another on each machine)"]
    missing += [] if master else ["MASTER_ADDR (the machine with NODE_RANK=0)"]
    if missing:
        raise UsageError(f"NODES={count}: missing: {', '.join(missing)}")
    if rank != "0" and not (_is_count(rank) and int(rank) < count):
        raise UsageError(f"NODE_RANK={rank}: with NODES={count} it is a number from 0 to {count - 1}")
    port = env.get("MASTER_PORT") or DEFAULT_PORT
    if not (_is_count(port) and int(port) <= 65535):
        raise UsageError(f"MASTER_PORT={port}: a port is needed, 1 to 65535, the same on all machines")
    join_seconds = env.get("JOIN_SECONDS") or DEFAULT_JOIN_SECONDS
    if not _is_count(join_seconds):
        raise UsageError(f"JOIN_SECONDS={join_seconds}: a number of seconds is needed")
    return Nodes(count, rank, master, port, join_seconds)


def _options(
    env: dict[str, str],
    root: Path,
    gpus: list[str] | None,
    visible: int,
    on_cpu: bool,
    processes: int,
    nodes: Nodes,
) -> list[str]:
    """Return the options of `accelerate launch`, which win over its configuration file.

    Raises UsageError if the file named by ACCELERATE_CONFIG is missing, or if another setting contradicts it.
    """
    if own := env.get("ACCELERATE_CONFIG"):
        if not Path(own).is_file():
            raise UsageError(f"ACCELERATE_CONFIG={own}: there is no such file")
        if env.get("NPROC") or env.get("NODES") or gpus is not None:
            raise UsageError(f"ACCELERATE_CONFIG={own} counts the processes; leave out NPROC, NODES and --gpus")
        env["ACCELERATE_CONFIG"] = os.path.abspath(own)  # a launch without arguments starts in another folder
        return ["--config_file", env["ACCELERATE_CONFIG"], *(["--machine_rank", nodes.rank] if nodes.rank else [])]
    file = "accelerate_config.yaml"
    if nodes.count > 1:
        file = "configs/accelerate/several_nodes.yaml"
    elif visible:
        file = f"configs/accelerate/{'several_gpus' if processes > 1 else 'one_gpu'}.yaml"
    elif processes > 1:
        file = "configs/accelerate/cpu_processes.yaml"
    options = ["--config_file", str(root / file), "--num_processes", str(nodes.count * processes)]
    if nodes.count > 1:
        options += ["--num_machines", str(nodes.count), "--machine_rank", nodes.rank]
        options += ["--main_process_ip", nodes.master, "--main_process_port", nodes.port]
        options += ["--rdzv_conf", f"timeout={nodes.join_seconds}"]
    elif on_cpu and processes == 1:
        options.append("--cpu")  # for one process accelerate overwrites ACCELERATE_USE_CPU by its options
    return options


def _use_cpu(env: dict[str, str], cores: int, processes: int) -> None:
    """Set the variables of programs on the CPU, unless the user has set them.

    ACCELERATE_USE_CPU forms one gloo group of several processes. Without it `accelerate launch --cpu --num_processes 2`
    starts one process, and --multi_gpu two unconnected ones.

    OMP_NUM_THREADS shares the cores out, because N processes would otherwise use N times the cores.

    GOMP_SPINCOUNT limits the time that waiting threads spin on cores needed by others. Beside two busy processes on
    two cores, training was 1.8 times as fast with the limit; on a quiet machine it was equally fast.
    """
    env["ACCELERATE_USE_CPU"] = env.get("ACCELERATE_USE_CPU") or "true"
    if not env.get("ACCELERATE_CONFIG"):  # such a file counts the processes, and accelerate shares the cores out
        env["OMP_NUM_THREADS"] = env.get("OMP_NUM_THREADS") or str(max(cores // processes, 1))
    env["GOMP_SPINCOUNT"] = env.get("GOMP_SPINCOUNT") or SPIN_COUNT
