"""Fixtures of all tests: a small spoken corpus, a tiny real Whisper, and runs of the real programs.

All pytest processes of a session share the corpus, the model, the reference runs and the parent of the programs.
"""

import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest
import soundfile
from hypothesis import settings

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: on a busy machine, threads that wait for each other crawl

from tests.preparing import Prepare, preparer
from tests.starts import Ended, Forked, Parent, Ranks, locked, rank_variables
from whisper_ft.cli.demo.corpus import write_corpus
from whisper_ft.cli.demo.model import Shape, write_micro_whisper
from whisper_ft.config.parse import given_settings, load_config
from whisper_ft.config.training import TrainingConfig
from whisper_ft.runtime.errors import UsageError
from whisper_ft.runtime.signals import STOP_SIGNALS
from whisper_ft.training.preflight import refuse_impossible

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell ignores it in programs that it starts in the background, and programs of the tests would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).parents[1]
DURATIONS = Path(__file__).parent / "data/durations.json"  # seconds by group of tests
SHORT_SECONDS = 2.0  # shorter groups are not recorded, and start last
SET_MEANWHILE = ("TOKENIZERS_PARALLELISM", "PYTEST_")  # variables set in this process by libraries and by pytest
Started = subprocess.Popen[bytes] | Forked | Ranks
UNEVALUATED = dict.fromkeys(
    f"eval__{name}" for name in ("path", "every", "at_start", "max_utterances", "max_new_tokens")
)
"""Settings for `Trainer.arguments` of a run that has nothing to score."""
START_SECONDS = 120  # a program that has not got somewhere by then hangs

# Same examples every time, and no deadline: a shared machine is slow now and then.
settings.register_profile("steady", derandomize=True, deadline=None, max_examples=60)
settings.load_profile("steady")


@cache
def durations() -> dict[str, float]:
    """Seconds of each group of tests that took long, as RECORD_DURATIONS=1 wrote them."""
    return dict(json.loads(DURATIONS.read_text())) if DURATIONS.exists() else {}


def group_of(nodeid: str) -> str:
    """The group of a test, which one process runs whole: its file, or the test alone where it takes long."""
    file, _, name = nodeid.partition("::")
    alone = f"{Path(file).stem}::{name}"
    return alone if alone in durations() else Path(file).stem


def is_bound(item: pytest.Item) -> bool:
    """True for a test with a fixture of its module, which would be made again in each process."""
    fixtures = item._fixtureinfo.name2fixturedefs.values()  # type: ignore[attr-defined]
    return any(definitions[-1].scope in ("module", "class") for definitions in fixtures)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest group first: begun last, it would keep a single process busy at the end."""
    for item in items:
        item.user_properties.append(("bound", is_bound(item)))
    items.sort(key=lambda item: -durations().get(group_of(item.nodeid), 0.0))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """The scheduler of `--dist loadscope` with these groups as scopes.

    `--dist loadgroup` has no effect in pytest 9.2, where a change of an item's id by pytest-xdist 3.8 is not seen.
    """
    from xdist.scheduler import LoadScopeScheduling

    class ByGroup(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return group_of(nodeid)

    return ByGroup(config, log) if config.getvalue("dist") == "loadscope" else None


RECORDED: dict[tuple[str, bool], float] = {}


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Add up the seconds of each test, and note whether it is bound to its module."""
    key = (report.nodeid, bool(dict(report.user_properties).get("bound", True)))
    RECORDED[key] = RECORDED.get(key, 0.0) + report.duration


def pytest_sessionfinish() -> None:
    """Write durations.json where RECORD_DURATIONS is set."""
    if "PYTEST_XDIST_WORKER" in os.environ or not os.environ.get("RECORD_DURATIONS"):
        return
    seconds: dict[str, float] = {}
    for (nodeid, bound), value in RECORDED.items():
        file, _, name = nodeid.partition("::")
        group = Path(file).stem + (f"::{name}" if value >= SHORT_SECONDS and not bound else "")
        seconds[group] = seconds.get(group, 0.0) + value
    seconds = durations() | {group: round(value, 1) for group, value in seconds.items() if value >= SHORT_SECONDS}
    DURATIONS.write_text(json.dumps(dict(sorted(seconds.items())), indent=1) + "\n")


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all pytest processes of this session share."""
    top = tmp_path_factory.getbasetemp()
    folder = (top.parent if "PYTEST_XDIST_WORKER" in os.environ else top) / "shared"
    folder.mkdir(exist_ok=True)
    return folder


def made_once(folder: Path, make: Callable[[Path], object]) -> Path:
    """A folder that the first process to need it makes, while others wait."""
    with locked(folder.with_name(f"{folder.name}.lock")):
        if not (folder.with_name(f"{folder.name}.made")).exists():
            make(folder)
            folder.with_name(f"{folder.name}.made").touch()
    return folder


@pytest.fixture(scope="session")
def corpus(shared: Path) -> Path:
    """100 spoken Belarusian training sentences, 12 for validation and 12 for test: FLAC and MP3 in parquet."""
    return made_once(shared / "be", lambda folder: write_corpus(folder, train=100, validation=12, test=12, processes=2))


@pytest.fixture(scope="session")
def micro_whisper(shared: Path) -> Path:
    """A real Whisper of 32 dimensions, 2 + 2 layers and a 5-second window, untrained."""
    return made_once(shared / "micro-whisper", lambda folder: write_micro_whisper(folder, Shape(d_model=32)))


def environment(processes: int) -> dict[str, str]:
    """Few threads, no network, and on a CPU box the variable that makes several processes one gloo group."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(SET_MEANWHILE)}
    return inherited | {
        "ACCELERATE_USE_CPU": "true",
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }


def kill_while_it_writes(command: str, arguments: list[str], out: Path) -> None:
    """Start a command that writes a folder under another name, and send SIGKILL as soon as that folder is there."""
    program = [sys.executable, "-m", "whisper_ft", command, *arguments]
    started = subprocess.Popen(program, cwd=ROOT, env=environment(1), stdout=subprocess.DEVNULL)
    while not list(out.parent.glob(f".tmp-{out.name}-*")) and started.poll() is None:
        time.sleep(0.002)
    started.send_signal(signal.SIGKILL)
    assert started.wait() == -signal.SIGKILL


def command(program: str, processes: int, *arguments: str) -> list[str]:
    """The command line of a root program in so many processes."""
    if processes == 1:
        return [sys.executable, str(ROOT / program), *arguments]
    launcher = ["accelerate", "launch", "--config_file", str(ROOT / "accelerate_config.yaml"), "--multi_gpu"]
    return [*launcher, "--num_processes", str(processes), str(ROOT / program), *arguments]


@contextmanager
def all_signals_heard() -> Iterator[None]:
    """Default actions for the signals that pytest ignores, in programs started meanwhile: SIGHUP under nohup.

    subprocess's preexec_fn would set them after the fork, in a copy of a process with threads, which may hang there.
    """
    ignored = [number for number in STOP_SIGNALS if signal.getsignal(number) is signal.SIG_IGN]
    for number in ignored:
        signal.signal(number, signal.SIG_DFL)
    try:
        yield
    finally:
        for number in ignored:
            signal.signal(number, signal.SIG_IGN)


def starts_quickly() -> bool:
    """True where programs are forked from a parent that has imported everything, each process of a group too.

    Only in the environment that the parent began with, because libraries read theirs when they are imported.
    """
    return not os.environ.get("FRESH_STARTS") and environment(1) == parent().environment


@cache
def parent() -> Parent:
    """The process that programs are forked from, one for all pytest processes of a session."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        return Parent(environment(1), os.environ["PYTEST_XDIST_TESTRUNUID"], os.getppid())
    return Parent(environment(1), str(os.getpid()), os.getpid())


def run(program: str, *arguments: str, processes: int = 1, cwd: Path = ROOT) -> Ended:
    """Run a root program to its end."""
    if starts_quickly():
        return parent().run(program, list(arguments), cwd, START_SECONDS * 3, processes)
    return run_fresh(program, *arguments, processes=processes, cwd=cwd)


def run_script(source: str, *arguments: str) -> Ended:
    """Run a program that a test writes out, and that may import train.py."""
    with tempfile.TemporaryDirectory() as folder:
        return run(script_in(Path(folder), source), *arguments)


def script_in(folder: Path, source: str) -> str:
    """The path of a script that finds the modules of the root."""
    (folder / "script.py").write_text(f"import sys\nsys.path[0] = {str(ROOT)!r}\n{source}")
    return str(folder / "script.py")


def run_fresh(program: str, *arguments: str, processes: int = 1, cwd: Path = ROOT) -> Ended:
    """Run a root program to its end as a user starts it: a new interpreter, and `accelerate launch` for several."""
    done = subprocess.run(
        command(program, processes, *arguments),
        cwd=cwd,
        env=environment(processes),
        capture_output=True,
        text=True,
        timeout=START_SECONDS * 3,
    )
    return Ended(done.returncode, done.stdout, done.stderr)


def ranks(*programs: tuple[str, list[str]]) -> list[Ended]:
    """Two programs with arguments each that form one group, as on two machines."""
    with ExitStack() as files:
        outputs = [[files.enter_context(tempfile.TemporaryFile("w+")) for _ in range(2)] for _ in programs]
        started = [
            parent().start(program, arguments, ROOT, *output, **variables)
            for (program, arguments), output, variables in zip(
                programs, outputs, rank_variables(len(programs)), strict=True
            )
        ]
        codes = [process.wait(START_SECONDS) for process in started]
        texts = [[(file.seek(0), file.read())[1] for file in output] for output in outputs]
    return [Ended(code, *text) for code, text in zip(codes, texts, strict=True)]


class EndedTooEarlyError(AssertionError):
    """The run ended before the moment at which a test wanted to interrupt it."""


class Trainer:
    """Runs of train.py on the small corpus, each in its own run directory."""

    def __init__(self, folder: Path, corpus: Path, model: Path, shared: Path) -> None:
        self.folder, self.corpus, self.model, self.shared = folder, corpus, model, shared

    def arguments(self, name: str, **settings: Any) -> list[str]:
        """Arguments of a short run with dropout, evaluations and checkpoints.

        `optim__lr=1` means --optim.lr 1, and None leaves out an argument.
        """
        values: dict[str, Any] = {
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
            "eval.at_start": "false",
            "eval.max_utterances": 4,
            "eval.max_new_tokens": 12,
            "save.every": 2,
        }
        values |= {key.replace("__", "."): value for key, value in settings.items()}
        given = {key: value for key, value in values.items() if value is not None}
        return [text for key, value in given.items() for text in (f"--{key}", str(value))]

    def __call__(self, name: str, processes: int = 1, **settings: Any) -> Path:
        """The run directory of a run that must end well."""
        ended = self.end(name, processes, **settings)
        assert ended.code == 0, ended.out + ended.err
        return self.folder / name

    def reference(self, processes: int = 1, **settings: Any) -> Path:
        """The run directory of an uninterrupted run, trained once in a session for all tests that need it.

        It is not to be changed; `copy_reference` makes a copy.
        """
        facts = {name: str(value) for name, value in settings.items()} | {"processes": processes}
        name = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
        shared = Trainer(self.shared / "runs", self.corpus, self.model, self.shared)
        shared.folder.mkdir(exist_ok=True)
        return made_once(shared.folder / name, lambda folder: shared(folder.name, processes, **settings))

    def copy_reference(self, name: str = "run", **settings: Any) -> Path:
        """A copy of a reference run in this test's folder: a run stays resumable when its directory is moved."""
        return Path(shutil.copytree(self.reference(**settings), self.folder / name))

    def refusal(self, name: str, **settings: Any) -> UsageError:
        """The error with which the check before the start refuses a run; in this process."""
        arguments = self.arguments(name, **settings)
        with pytest.raises(UsageError) as caught:
            refuse_impossible(load_config(TrainingConfig, arguments), given_settings(TrainingConfig, arguments))
        return caught.value

    def end(self, name: str, processes: int = 1, **settings: Any) -> Ended:
        """Exit code and output of a run."""
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
        """Start a run, send all its processes a signal as soon as a condition holds, and return the exit code."""
        started = self.start(self.arguments(name, **settings), processes)
        deadline = time.monotonic() + START_SECONDS
        while not when(self.folder / name) and started.poll() is None:
            assert time.monotonic() < deadline, "the run did not get that far"
            time.sleep(0.005)
        if started.poll() is not None:
            raise EndedTooEarlyError("the run ended before it was interrupted")
        # torchrun starts each worker in a session of its own: a signal to the launcher's group would miss them.
        for trainer in [psutil.Process(pid) for pid in pids_of(started)]:
            for process in [*trainer.children(recursive=True), *([] if only_children else [trainer])]:
                with suppress(psutil.NoSuchProcess):
                    process.send_signal(with_signal)
        return started.wait(START_SECONDS)

    @staticmethod
    def start(arguments: list[str], processes: int) -> Started:
        """Start train.py without any output."""
        return start("train.py", arguments, processes)


def start(program: str, arguments: list[str], processes: int = 1) -> Started:
    """Start a root program without any output."""
    with open(os.devnull, "w") as nowhere:
        if not starts_quickly():
            argv = command(program, processes, *arguments)
            return subprocess.Popen(argv, cwd=ROOT, env=environment(processes), stdout=nowhere, stderr=nowhere)
        if processes == 1:
            return parent().start(program, arguments, ROOT, nowhere, nowhere)
        return parent().start_ranks(program, arguments, ROOT, nowhere, nowhere, processes)


def pids_of(started: Started) -> list[int]:
    """Process ids of a started program: of its launcher, or of all its ranks."""
    return [process.pid for process in started.processes] if isinstance(started, Ranks) else [started.pid]


@pytest.fixture
def train(tmp_path: Path, corpus: Path, micro_whisper: Path, shared: Path) -> Trainer:
    """Runs of train.py in this test's folder."""
    return Trainer(tmp_path, corpus, micro_whisper, shared)


@pytest.fixture(scope="session")
def trained(shared: Path, corpus: Path, micro_whisper: Path) -> Path:
    """A run whose model writes words."""
    settings: dict[str, Any] = {"eval__max_utterances": 100, "eval__max_new_tokens": 100, "eval__every": 40}
    trainer = Trainer(shared, corpus, micro_whisper, shared)
    return trainer.reference(steps=40, optim__lr=3e-3, save__every=0, log__every=10, **settings)


@pytest.fixture(scope="session")
def learnt(shared: Path, corpus: Path, micro_whisper: Path) -> Path:
    """A model that knows three sentences of the validation set by heart, and ends each text."""

    def make(out: Path) -> None:
        from tests.learnt_speech import write_learnt_model

        write_learnt_model(micro_whisper, corpus / "validation", out)

    return made_once(shared / "learnt", make)


@pytest.fixture(scope="session")
def sounds(shared: Path, corpus: Path) -> Path:
    """Clips as people have them: flac, mp3, m4a, stereo at 44.1 kHz, 8 kHz in mu-law, and one of 40 s."""

    def make(folder: Path) -> None:
        from tests.test_containers import written

        rows = [
            clip for path in sorted((corpus / "test").glob("*.parquet")) for clip in pq.read_table(path).to_pylist()
        ]
        clips = [soundfile.read(io.BytesIO(row["audio"]["bytes"]), dtype="float32")[0] for row in rows]
        (folder / "deep").mkdir(parents=True)
        soundfile.write(folder / "a.flac", clips[0], 16_000)
        soundfile.write(folder / "a.mp3", clips[1], 16_000)
        soundfile.write(folder / "phone.wav", clips[2][::2], 8_000, subtype="ULAW")
        soundfile.write(folder / "deep/stereo.ogg", np.stack([clips[3].repeat(3)] * 2, 1), 48_000)
        (folder / "deep/b.m4a").write_bytes(written("m4a", clips[4].repeat(3)[:, None]))
        soundfile.write(folder / "long.wav", np.concatenate(clips), 16_000)

    return made_once(shared / "sounds", make)


@pytest.fixture(scope="session")
def transcribed(shared: Path, trained: Path, sounds: Path) -> Path:
    """Transcripts of all sounds, in all formats."""

    def make(out: Path) -> None:
        arguments = trained, sounds, "--out", out, "--to", "txt,srt,vtt,tsv,json", "--batch_size", 4
        ended = run("whisper_ft/__main__.py", "transcribe", *map(str, arguments))
        assert ended.code == 0, ended.out + ended.err

    return made_once(shared / "transcribed", make)


@pytest.fixture
def prepare(capsys: pytest.CaptureFixture[str]) -> Prepare:
    """Runs of `prepare` in this process: its exit code, and the line that it said."""
    return preparer(capsys)


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
