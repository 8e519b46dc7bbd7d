"""What the tests share: a small spoken corpus, a tiny real Whisper, and runs of the real programs in real processes."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import settings

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: on a busy machine, threads that wait for each other crawl

from tests.starts import Ended, Forked, Parent
from whisper_ft.cli.demo.corpus import write_corpus
from whisper_ft.cli.demo.model import Shape, write_micro_whisper
from whisper_ft.runtime.signals import STOP_SIGNALS

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # As a shell does for what it starts in the background: programs of the tests would not hear a Ctrl-C either.
    signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).parents[1]
SET_MEANWHILE = ("PYTEST_CURRENT_TEST", "TOKENIZERS_PARALLELISM")  # by pytest and by libraries, in this process
START_SECONDS = 120  # a program that has not got somewhere by then hangs
# Files that take 40 s or more, the longest first: begun last, one would keep a single process busy at the end.
SLOWEST = """
    test_launch test_evaluate test_train_invariants test_readme test_bench test_resume test_exit_codes test_mix
    test_real_checkpoints test_normalizers test_best test_bytes_read test_installed test_processes test_commandline
    test_fp16 test_multinode test_slurm test_doctor
"""

# Same examples every time, and no deadline: a shared machine is slow now and then.
settings.register_profile("steady", derandomize=True, deadline=None, max_examples=60)
settings.load_profile("steady")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files in the order in which processes should take them."""
    place = {name: number for number, name in enumerate(SLOWEST.split())}
    items.sort(key=lambda item: place.get(item.path.stem, len(place)))


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """100 spoken Belarusian training sentences, 12 for validation and 12 for test: FLAC and MP3 in parquet."""
    folder = tmp_path_factory.mktemp("data") / "be"
    write_corpus(folder, train=100, validation=12, test=12, processes=2)
    return folder


@pytest.fixture(scope="session")
def micro_whisper(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real Whisper of 32 dimensions, 2 + 2 layers and a 5-second window, untrained."""
    folder = tmp_path_factory.mktemp("model") / "micro-whisper"
    write_micro_whisper(folder, Shape(d_model=32))
    return folder


def environment(processes: int) -> dict[str, str]:
    """Few threads, no network, and on a CPU box what makes several processes one gloo group."""
    inherited = {name: value for name, value in os.environ.items() if name not in SET_MEANWHILE}
    return inherited | {
        "ACCELERATE_USE_CPU": "true",
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }


def command(program: str, processes: int, *arguments: str) -> list[str]:
    """The command line of a root program in so many processes."""
    if processes == 1:
        return [sys.executable, str(ROOT / program), *arguments]
    launcher = ["accelerate", "launch", "--config_file", str(ROOT / "accelerate_config.yaml"), "--multi_gpu"]
    return [*launcher, "--num_processes", str(processes), str(ROOT / program), *arguments]


@contextmanager
def all_signals_heard() -> Iterator[None]:
    """What is started meanwhile also hears what pytest ignores, and programs with it: SIGHUP under nohup.

    subprocess's preexec_fn would set it after the fork, in a copy of a process with threads, which may hang there.
    """
    ignored = [number for number in STOP_SIGNALS if signal.getsignal(number) is signal.SIG_IGN]
    for number in ignored:
        signal.signal(number, signal.SIG_DFL)
    try:
        yield
    finally:
        for number in ignored:
            signal.signal(number, signal.SIG_IGN)


def starts_quickly(processes: int) -> bool:
    """True where a program is forked from one that has imported everything; several processes need a launcher.

    In the environment that this one began with: libraries read theirs when they are imported.
    """
    return processes == 1 and not os.environ.get("FRESH_STARTS") and environment(1) == parent().environment


@cache
def parent() -> Parent:
    """What one process is forked from."""
    return Parent(environment(1))


def run(program: str, *arguments: str, processes: int = 1, cwd: Path = ROOT) -> Ended:
    """Run a root program to its end."""
    if starts_quickly(processes):
        return parent().run(program, list(arguments), cwd, START_SECONDS * 3)
    done = subprocess.run(
        command(program, processes, *arguments),
        cwd=cwd,
        env=environment(processes),
        capture_output=True,
        text=True,
        timeout=START_SECONDS * 3,
    )
    return Ended(done.returncode, done.stdout, done.stderr)


class Trainer:
    """Runs of train.py on the small corpus, each in its own run directory."""

    def __init__(self, folder: Path, corpus: Path, model: Path) -> None:
        self.folder, self.corpus, self.model = folder, corpus, model

    def arguments(self, name: str, **settings: Any) -> list[str]:
        """A short run with dropout, evaluations and checkpoints on; `optim__lr=1` means --optim.lr 1."""
        given: dict[str, Any] = {
            "run_dir": self.folder / name,
            "steps": 8,
            "model.name": self.model,
            "model.dropout": 0.1,
            "data.path": self.corpus / "train",
            "data.language": "be",
            "batch.size": 8,
            "batch.per_device": 4,
            "optim.lr": 1e-3,
            "schedule.warmup": 2,
            "log.every": 1,
            "eval.path": self.corpus / "validation",
            "eval.every": 4,
            "eval.max_utterances": 4,
            "eval.max_new_tokens": 12,
            "save.every": 2,
        }
        given |= {key.replace("__", "."): value for key, value in settings.items()}
        return [text for key, value in given.items() for text in (f"--{key}", str(value))]

    def __call__(self, name: str, processes: int = 1, **settings: Any) -> Path:
        """The run directory of a run that must end well."""
        ended = self.end(name, processes, **settings)
        assert ended.code == 0, ended.out + ended.err
        return self.folder / name

    def end(self, name: str, processes: int = 1, **settings: Any) -> Ended:
        """How a run ended."""
        return run("train.py", *self.arguments(name, **settings), processes=processes)

    def interrupt(
        self,
        name: str,
        when: Callable[[Path], bool],
        with_signal: signal.Signals,
        processes: int = 1,
        only_children: bool = False,
        **settings: Any,
    ) -> int:
        """Start a run, send all its processes a signal as soon as something is so, and give the exit code."""
        started = self.start(self.arguments(name, **settings), processes)
        deadline = time.monotonic() + START_SECONDS
        while not when(self.folder / name) and started.poll() is None:
            assert time.monotonic() < deadline, "the run did not get that far"
            time.sleep(0.005)
        assert started.poll() is None, "the run ended before it was interrupted"
        # torchrun starts each worker in a session of its own: a signal to the launcher's group would miss them.
        trainer = psutil.Process(started.pid)
        for process in [*trainer.children(recursive=True), *([] if only_children else [trainer])]:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(with_signal)
        return started.wait(START_SECONDS)

    @staticmethod
    def start(arguments: list[str], processes: int) -> subprocess.Popen[bytes] | Forked:
        """Start train.py without a word."""
        with open(os.devnull, "w") as nowhere:
            if starts_quickly(processes):
                return parent().start("train.py", arguments, ROOT, nowhere, nowhere)
            argv = command("train.py", processes, *arguments)
            return subprocess.Popen(argv, cwd=ROOT, env=environment(processes), stdout=nowhere, stderr=nowhere)


@pytest.fixture
def train(tmp_path: Path, corpus: Path, micro_whisper: Path) -> Trainer:
    """Runs of train.py in this test's folder."""
    return Trainer(tmp_path, corpus, micro_whisper)


def metrics(run_dir: Path, *, having: str = "loss") -> dict[int, dict[str, Any]]:
    """Rows of metrics.jsonl by step; the last of a step counts, as after a resume."""
    lines = (run_dir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return {row["step"]: row for row in map(json.loads, lines) if having in row}


def digest(run_dir: Path, part: str = "final/model.safetensors") -> str:
    """sha256 of the weights after the last update."""
    return hashlib.sha256((run_dir / part).read_bytes()).hexdigest()


def logged(step: int) -> Callable[[Path], bool]:
    """True once a run has logged a step."""
    return lambda run_dir: (run_dir / "metrics.jsonl").exists() and step in metrics_so_far(run_dir)


def metrics_so_far(run_dir: Path) -> set[int]:
    """Steps logged by a run that may be writing its next line."""
    steps = set()
    for line in (run_dir / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
        if line.endswith("}"):
            steps.add(json.loads(line)["step"])
    return steps
