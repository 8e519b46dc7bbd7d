"""Tracker backends: they get every row, continue over a resume, and cannot stop or delay a training."""

import importlib.util
import json
import re
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from normalizers import get_normalizer
from tests.conftest import ROOT, Trainer, digest, environment, logged, metrics
from whisper_ft.checkpoint.state import TrainState
from whisper_ft.config.training import TrackConfig, TrainingConfig
from whisper_ft.runtime.errors import UsageError
from whisper_ft.scoring.scores import Prediction, score
from whisper_ft.tracking.backends.packages import RunInfo, refuse_missing_packages
from whisper_ft.tracking.backends.process import TrackerProcess
from whisper_ft.tracking.tracker import Tracker, identity_of

SECRET = "0123456789abcdef0123456789abcdef01234567"  # the form of a W&B key
LONG = 60.0  # seconds; enough for any import on a busy machine


def run_in(folder: Path) -> RunInfo:
    return RunInfo(str(folder), name="demo", project="p", config={"seed": 1}, identity="abcd1234")


def needs(package: str) -> pytest.MarkDecorator:
    missing = importlib.util.find_spec(package) is None
    return pytest.mark.skipif(missing, reason=f"{package} is not installed: pip install {package}")


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Creates a package `trackio` from code, which is found before any other."""

    def make(code: str) -> None:
        folder = tmp_path / "packages"
        (folder / "trackio").mkdir(parents=True)
        (folder / "trackio" / "__init__.py").write_text(textwrap.dedent(code))
        monkeypatch.setenv("PYTHONPATH", str(folder))
        monkeypatch.syspath_prepend(folder)

    return make


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[], TrackerProcess]]:
    """Starts the backend trackio; it does not outlive the test."""
    started: list[TrackerProcess] = []

    def start_one() -> TrackerProcess:
        started.append(TrackerProcess("trackio", run_in(tmp_path), step=0))
        return started[-1]

    yield start_one
    for process in started:
        process.close(0.0)


def first_problems(process: TrackerProcess) -> list[str]:
    """Waits for the first problems that a backend reports."""
    deadline = time.monotonic() + LONG
    while time.monotonic() < deadline:
        if problems := process.problems():
            return problems
        time.sleep(0.05)
    raise AssertionError("no problem was reported")


def facts(problems: list[str]) -> list[int]:
    """The number in each problem."""
    return [int(number) for problem in problems for number in re.findall(r"\b\d+\b", problem)]


RECORDER = """
    import json, pathlib
    class Run:
        def __init__(self, **settings): self.rows = [settings["name"]]
        def log(self, figures, step): self.rows.append([step, figures])
        def finish(self): pathlib.Path({place!r}).write_text(json.dumps(self.rows))
    def init(**settings): return Run(**settings)
    Markdown = str
"""


def test_every_row_arrives_in_order(
    package: Callable[[str], None], start: Callable[[], TrackerProcess], tmp_path: Path
):
    package(RECORDER.format(place=str(tmp_path / "rows.json")))
    process = start()
    for step in range(2000):
        process.send(step, {"train/loss": step / 7})
    process.finish(0)
    assert process.close(time.monotonic() + LONG) == []
    name, *rows = json.loads((tmp_path / "rows.json").read_text())
    assert name == "demo-abcd1234"
    assert rows == [[step, {"train/loss": step / 7}] for step in range(2000)]


def test_one_that_hangs_delays_nothing_takes_little_memory_and_is_ended(
    package: Callable[[str], None], start: Callable[[], TrackerProcess]
):
    package("import time\ntime.sleep(10_000)")
    process = start()
    figures = {f"train/figure-{number}": 0.1 for number in range(40)}
    for step in range(10_000):  # 9 MB, far more than a pipe holds: a send that waits would wait for ever
        process.send(step, figures)
    assert process.dropped > 1000
    process.finish(0)
    (problem,) = process.close(time.monotonic() + 0.1)
    assert "did not end in time" in problem
    assert not psutil.pid_exists(process._process.pid)


def test_failures_are_told_once_and_counted(package: Callable[[str], None], start: Callable[[], TrackerProcess]):
    package(
        """
        class Run:
            def log(self, figures, step):
                print("noise on standard output")
                raise OSError("no space left on their disk")
            def finish(self): pass
        def init(**settings): return Run()
        """
    )
    process = start()
    for step in range(7):
        process.send(step, {"train/loss": 1.0})
    assert first_problems(process) == ["OSError: no space left on their disk"]
    process.finish(0)
    assert facts(process.close(time.monotonic() + LONG)) == [7]


def test_one_that_cannot_begin_says_why(package: Callable[[str], None], start: Callable[[], TrackerProcess]):
    package('def init(**settings): raise ValueError("you are not\\nlogged in")')
    process = start()
    assert first_problems(process) == ["ValueError: you are not logged in"]
    process.send(1, {"train/loss": 1.0})
    process.finish(0)
    assert facts(process.close(time.monotonic() + LONG)) == [1]


def test_one_that_died_is_only_counted(package: Callable[[str], None], start: Callable[[], TrackerProcess]):
    package("import os\nos._exit(9)")
    process = start()
    process._process.wait(LONG)
    for step in range(5):
        process.send(step, {"train/loss": 1.0})
    process.finish(0)
    assert facts(process.close(time.monotonic() + LONG)) == [9, 5], "exit code of the process, and lost rows"


def test_a_stop_signal_leaves_it_time_to_store_what_is_left(
    package: Callable[[str], None], start: Callable[[], TrackerProcess], tmp_path: Path
):
    package(RECORDER.format(place=str(tmp_path / "rows.json")))
    process = start()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
        process._process.send_signal(number)
    process.send(1, {"train/loss": 1.0})
    process.finish(75)
    assert process.close(time.monotonic() + LONG) == []
    assert json.loads((tmp_path / "rows.json").read_text())[1:] == [[1, {"train/loss": 1.0}]]


@pytest.mark.long
def test_it_stores_what_it_has_and_ends_when_its_run_was_killed(package: Callable[[str], None], tmp_path: Path):
    package(RECORDER.format(place=str(tmp_path / "rows.json")))
    run = f"""
        import os, signal
        from whisper_ft.tracking.backends.packages import RunInfo
        from whisper_ft.tracking.backends.process import TrackerProcess
        process = TrackerProcess("trackio", {run_in(tmp_path)!r}, 0)
        process.send(1, {{"train/loss": 1.0}})
        print(process._process.pid, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(run)], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    deadline = time.monotonic() + LONG
    while psutil.pid_exists(int(done.stdout)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert json.loads((tmp_path / "rows.json").read_text())[1:] == [[1, {"train/loss": 1.0}]]


def test_a_folder_of_its_name_is_no_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "nobodys_tracker").mkdir()  # as wandb leaves one where it ran
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UsageError, match="pip install nobodys_tracker"):
        refuse_missing_packages(["nobodys_tracker"])


@pytest.mark.long
def test_a_missing_package_is_refused_at_the_start_with_the_way_to_get_it(train: Trainer, tmp_path: Path):
    missing = [name for name in ("wandb", "trackio", "tensorboard") if _is_missing(name)]
    if not missing:
        pytest.skip("wandb, trackio and tensorboard are all installed")
    ended = train.end("never", track__to=f"[{missing[0]}]")
    assert ended.code == 2
    assert re.fullmatch(rf"error: --track.to {missing[0]}: .*pip install {missing[0]}\n", ended.err)
    assert not (tmp_path / "never" / "metrics.jsonl").exists()


def _is_missing(name: str) -> bool:
    try:
        refuse_missing_packages([name])
    except UsageError:
        return True
    return False


def test_only_the_main_process_has_trackers(tmp_path: Path, package: Callable[[str], None]):
    package("raise SystemExit")
    config = TrainingConfig(run_dir=tmp_path, track=TrackConfig(to=["trackio"]))
    tracker = Tracker.of_run(config, 10, enabled=False)
    with tracker.live(0):
        tracker.log_step({"step": 1, "loss": 1.0, "lr": 1.0, "grad_norm": 1.0, "loss_scale": 1.0,
                      "utterances_per_second": 1.0, "data_wait": 0.0})  # fmt: skip
    tracker.close(0)
    assert not (tmp_path / "tracker-id").exists()


def test_a_run_keeps_its_identity(tmp_path: Path):
    first = identity_of(tmp_path)
    assert len(first) == 8
    assert identity_of(tmp_path) == first


@pytest.mark.long
def test_a_tracker_that_hangs_leaves_a_run_as_it_is(train: Trainer, package: Callable[[str], None], tmp_path: Path):
    plain = train("plain", steps=4, eval__every=0)
    package("import time\ntime.sleep(10_000)")
    impatient = "import whisper_ft.tracking.tracker as t; t.FINISHED_SECONDS = 1.0; import train; train.main()"
    arguments = train.arguments("hung", steps=4, eval__every=0, track__to="[trackio]")
    argv = [sys.executable, "-c", impatient, *arguments]
    ended = subprocess.run(argv, cwd=ROOT, env=environment(1), capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert "warning: trackio: it did not end in time" in ended.stdout
    assert digest(tmp_path / "hung") == digest(plain)


def tagged(run_dir: Path, tag: str) -> dict[int, float]:
    """Scalars of a TensorBoard folder as TensorBoard shows them; a step that is there twice is an error."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accumulator = EventAccumulator(str(run_dir / "tensorboard"))
    accumulator.Reload()
    events = accumulator.Scalars(tag)
    assert [event.step for event in events] == sorted({event.step for event in events})
    return {event.step: event.value for event in events}


@needs("tensorboard")
@pytest.mark.long
def test_tensorboard_shows_the_rows_of_a_run_that_was_killed_and_resumed(train: Trainer, tmp_path: Path):
    sets = f"[{{name: read, path: {train.corpus / 'test'}, every: 2, max_utterances: 2}}]"
    options: dict[str, Any] = {"track__to": "[tensorboard]", "save__every": 3, "steps": 8, "eval__every": 4}
    options["eval__sets"] = sets
    train.interrupt("seen", logged(5), signal.SIGKILL, **options)
    run_dir = train("seen", **options)
    rows, evaluations = metrics(run_dir), metrics(run_dir, having="wer")
    assert tagged(run_dir, "train/loss") == pytest.approx({step: row["loss"] for step, row in rows.items()}, rel=1e-6)
    assert set(tagged(run_dir, "eval/cer")) == set(evaluations) == {4, 8}
    assert set(tagged(run_dir, "eval/read/cer")) == {2, 4, 6, 8}
    assert set(tagged(run_dir, "train/audio_hours")) == set(range(1, 9))


@needs("tensorboard")
def test_an_evaluation_sends_its_main_figures_first_and_its_transcripts_as_text(tmp_path: Path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    tracker = Tracker(tmp_path, steps=8, enabled=True, backends=["tensorboard"], run=run_in(tmp_path))
    scores = score([Prediction("a", "добры дзень", "добры # дзэнь", 1.0, 3)], get_normalizer("lower"))
    with tracker.live(0):
        names = "lr grad_norm loss_scale label_tokens skipped unusable utterances_per_second data_wait audio_hours"
        tracker.log_step({"step": 1, "loss": 2.5} | dict.fromkeys([*names.split(), "memory_gb"], 1.0))
        tracker.log_evaluation(TrainState(step=2), scores, {"read": scores}, "fp32")
    tracker.close(0)
    accumulator = EventAccumulator(str(tmp_path / "tensorboard"))
    accumulator.Reload()
    tags = sorted(accumulator.Tags()["scalars"])
    first = ["0_main/cer", "0_main/loss", "0_main/read/cer", "0_main/read/wer", "0_main/wer"]
    assert tags[: len(first)] == first
    assert {"eval/wer", "eval/read/cer", "train/loss", "train/lr"} <= set(tags)
    (event,) = accumulator.Tensors("0_main/transcripts")
    assert event.step == 2
    text = event.tensor_proto.string_val[0].decode()
    assert "ref добры [дзень]" in text
    assert "hyp добры [# дзэнь]" in text


def test_trackio_gets_the_transcripts_as_a_report(
    package: Callable[[str], None], start: Callable[[], TrackerProcess], tmp_path: Path
):
    package(RECORDER.format(place=str(tmp_path / "rows.json")))
    process = start()
    process.send(3, {"eval/wer": 0.5}, "ref # a\nhyp *b*")
    process.finish(0)
    assert process.close(time.monotonic() + LONG) == []
    _, *rows = json.loads((tmp_path / "rows.json").read_text())
    assert rows == [[3, {"eval/wer": 0.5}], [3, {"0_main/transcripts": "    ref # a\n    hyp *b*\n"}]]


@needs("tensorboard")
def test_tensorboard_has_the_configuration(tmp_path: Path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    process = TrackerProcess("tensorboard", run_in(tmp_path), step=0)
    process.finish(0)
    assert process.close(time.monotonic() + LONG) == []
    accumulator = EventAccumulator(str(tmp_path / "tensorboard"))
    accumulator.Reload()
    (event,) = accumulator.Tensors("config")
    assert b'"seed": 1' in event.tensor_proto.string_val[0]


def rows_sent(tmp_path: Path, name: str, step: int) -> None:
    """One start of a run that logs two steps."""
    process = TrackerProcess(name, run_in(tmp_path), step=step)
    for number in (step + 1, step + 2):
        process.send(number, {"train/loss": 1 / number})
    process.finish(0)
    assert process.close(time.monotonic() + LONG) == []


@needs("wandb")
def test_wandb_goes_on_with_its_run_and_leaves_no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_API_KEY", SECRET)
    for step in (0, 1):
        rows_sent(tmp_path, "wandb", step)
    runs = sorted((tmp_path / "wandb").glob("offline-run-*"))
    assert [run.name.rpartition("-")[2] for run in runs] == ["abcd1234"] * 2
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or SECRET.encode() not in path.read_bytes(), path
    assert all(b"train/loss" in next(run.glob("*.wandb")).read_bytes() for run in runs)


@needs("trackio")
def test_trackio_goes_on_with_its_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    for step in (0, 1):
        rows_sent(tmp_path, "trackio", step)
    with sqlite3.connect(tmp_path / "trackio" / "p.db") as database:
        rows = database.execute("select run_name, run_id, step from metrics order by id").fetchall()
    assert [row[2] for row in rows] == [1, 2, 2, 3]
    assert len({row[:2] for row in rows}) == 1
    assert rows[0][0] == "demo-abcd1234"
