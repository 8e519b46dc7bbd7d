"""Tracker of a run: the main rank reports every message, figure and evaluation through it."""

import math
import secrets
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from rich.console import RenderableType

from whisper_ft.checkpoint.state import TrainState
from whisper_ft.config.training import ScreenMode, TrainingConfig
from whisper_ft.config.tree import to_plain
from whisper_ft.data.types import Rejected
from whisper_ft.reports.guard_text import warning_line
from whisper_ft.runtime import atomic
from whisper_ft.runtime.errors import DiskError
from whisper_ft.runtime.exit_codes import FINISHED
from whisper_ft.runtime.printable import say
from whisper_ft.scoring.guard import Verdict
from whisper_ft.scoring.scores import Prediction, Scores
from whisper_ft.scoring.set_figures import ALWAYS, WORSE, figures_of_set, named_figures
from whisper_ft.tracking.backends.packages import RunInfo, refuse_missing_packages
from whisper_ft.tracking.backends.process import TrackerProcess
from whisper_ft.tracking.console import eval_table, set_table
from whisper_ft.tracking.console.screen import Advance, Screen
from whisper_ft.tracking.console.set_table import SetTrend
from whisper_ft.tracking.console.stdout import Stdout
from whisper_ft.tracking.console.step_line import step_figures
from whisper_ft.tracking.console.transcripts import transcript_lines, transcript_table
from whisper_ft.tracking.metrics_log import MetricsLog
from whisper_ft.tracking.quarantine import Quarantine

FINISHED_SECONDS = 30.0  # seconds that backends have to store the rest after a run that finished
STOPPED_SECONDS = 5.0  # the same after a stop signal or an error; a reclaimed machine gives little time
MAIN_GROUP = "0_main"  # trackers sort groups by name
MAIN_FIGURES = ("wer", "cer", "loss", "eval_loss")  # `loss` is that of training; a set has NAME/wer and so on
IDENTITY = "tracker-id"  # file of the run directory with the run's identity for the backends


class Tracker:
    """Console, log files and backends of one run. On every rank except the main one, a tracker does nothing."""

    def __init__(
        self,
        folder: Path,
        steps: int,
        enabled: bool,
        screen: ScreenMode = "auto",
        backends: Sequence[str] = (),
        run: RunInfo | None = None,
        is_own: Callable[[], bool] = lambda: True,
    ) -> None:
        """Create the tracker.

        Parameters
            folder: run directory.
            steps: updates of the run.
            enabled: True on the main rank.
            run: facts that the backends show; without them no backend is started.
            is_own: False once the folder is another run's; no log is then written.
        """
        self.enabled = enabled
        self._folder, self._steps = folder, steps
        self._failures = 0
        self._metrics = MetricsLog(folder, self._best_effort, is_own)
        self._quarantine = Quarantine(folder, self._best_effort, is_own)
        self._screen = Screen(Stdout(self._best_effort), steps, enabled=enabled, mode=screen)
        self._backends, self._run = backends if enabled else (), run
        self._processes: list[TrackerProcess] = []

    @classmethod
    def of_run(
        cls, config: TrainingConfig, steps: int, *, enabled: bool, is_own: Callable[[], bool] = lambda: True
    ) -> Self:
        """Build the tracker for a run's configuration. Raises UsageError if the package of a backend is missing."""
        backends = list(dict.fromkeys(config.track.to))
        if enabled:
            refuse_missing_packages(backends)
        folder = config.run_dir.resolve()
        run = RunInfo(str(folder), config.track.name or folder.name, config.track.project, to_plain(config))
        return cls(config.run_dir, steps, enabled, config.log.screen, backends, run, is_own)

    @contextmanager
    def live(self, step: int) -> Iterator[None]:
        """Start the backends, and on a terminal a progress bar, which begins at `step`.

        The bar ends with the block; the backends run until `close`.
        """
        if self._backends and self._run is not None:
            with self._best_effort():
                run = replace(self._run, identity=identity_of(self._folder))
                for name in self._backends:
                    self._processes.append(TrackerProcess(name, run, step))
        with self._screen.live(step):
            yield

    def say(self, text: str, always: bool = False) -> None:
        """Print one line. If `log.screen` is quiet, only a `warning: ...` or a line with `always` is printed."""
        self._screen.say(text, always)

    def say_all(self, lines: Iterable[str]) -> None:
        """Print lines, each as `say` does."""
        for line in lines:
            self.say(line)

    def show(self, renderable: RenderableType) -> None:
        """Print an object of rich, such as a table; nothing if `log.screen` is quiet."""
        self._screen.show(renderable)

    def move_bar(self, step: int) -> None:
        """Move the progress bar to a step."""
        self._screen.move_bar(step)

    def log_step(self, row: Mapping[str, Any]) -> None:
        """Log a step: a line in metrics.jsonl and on the console, and a row for each backend."""
        self.record(row)
        self._screen.step(row["step"], step_figures(row, self._screen.seconds_left()))
        self._send("train", row)

    def rate_at(self, step: int, name: str) -> float | None:
        """Return an error rate of the held-out set at an earlier step; None if it is not known."""
        value = next((row.get(name) for row in self._metrics.rows([step], having=ALWAYS)), None)
        return float(value) if isinstance(value, int | float) else None

    def predictions_at(self, step: int, name: str) -> list[Prediction]:
        """Return the transcripts of a set of eval.sets at an earlier step; [] if they are missing or damaged."""
        return self._metrics.predictions(step, name)

    def log_evaluation(
        self,
        state: TrainState,
        scores: Scores | None,
        sets: Mapping[str, Scores],
        precision: str,
        warnings: Mapping[str, str] | None = None,
        verdicts: Mapping[str, Verdict] | None = None,
    ) -> None:
        """Log an evaluation at `state.step`.

        It writes a line to metrics.jsonl and transcripts to predictions/, and sends the figures to the backends. The
        console shows rates, their change since earlier evaluations, and sample transcripts of the held-out set.

        Parameters
            scores: of the held-out set; None if it was not scored at this step.
            sets: scores of sets of eval.sets, by name.
            precision: in which the model was scored.
            warnings: line about each long set, or "", by its name. The figure NAME/worse is true if there is a line.
            verdicts: of the guards of these sets, by name.
        """
        if not self.enabled:
            return
        figures = scores.summary() if scores else {}
        for name, of_set in sets.items():
            figures |= named_figures(name, of_set.summary())
        figures |= {f"{name}/{WORSE}": bool(line) for name, line in (warnings or {}).items()}
        verdicts = verdicts or {}
        for name, verdict in verdicts.items():
            figures |= named_figures(name, verdict.summary())
        best = {"best": state.best and state.best.value} if scores else {}
        self.record({"step": state.step, **figures, **best, "precision": precision})
        for name, each in [*([("", scores)] if scores else []), *sets.items()]:
            self._metrics.write_predictions(state.step, [row.record() for row in each.rows], name)
        if scores is not None:
            self._show_held_out(state, scores)
        self._show_sets(state, sets, verdicts)
        self.say_all(filter(None, (warnings or {}).values()))
        self.say_all(warning_line(verdict) for verdict in verdicts.values() if verdict.is_outside)
        text = "\n".join(transcript_lines(scores)) if scores is not None else ""
        self._send("eval", {"step": state.step, **figures}, text)

    def log_start_figures(self, sets: Mapping[str, Scores], precision: str) -> None:
        """Log the figures and transcripts of the start model on sets that a resumed run has begun to guard.

        The line in metrics.jsonl is of step 0 and has the event `start_model`, because later steps are logged already.
        """
        if not self.enabled:
            return
        row: dict[str, Any] = {"event": "start_model", "step": 0, "precision": precision}
        for name, scores in sets.items():
            row |= named_figures(name, scores.summary())
            self._metrics.write_predictions(0, [one.record() for one in scores.rows], name)
        self.record(row)

    def _show_held_out(self, state: TrainState, scores: Scores) -> None:
        steps = [0, *(step for step, _ in state.evaluated if step < state.step)] if state.step else []
        earlier = self._metrics.rows(steps, having="wer")
        if self._screen.console.is_terminal:
            self.show(eval_table.table(state, self._steps, scores, earlier))
            self.show(transcript_table(scores, self._screen.console.width))
            return
        self.say(eval_table.line(state, self._steps, scores, earlier))
        self.say_all(transcript_lines(scores))

    def _show_sets(self, state: TrainState, sets: Mapping[str, Scores], verdicts: Mapping[str, Verdict]) -> None:
        trends = []
        for name, scores in sets.items():
            steps = [step for step in state.steps_of_set(name) if step < state.step]
            rows = self._metrics.rows(steps, having=f"{name}/{ALWAYS}")
            trends.append(SetTrend(name, scores, [figures_of_set(row, name) for row in rows], verdicts.get(name)))
        if trends and self._screen.console.is_terminal:
            self.show(set_table.table(state.step, self._steps, trends))
        else:
            self.say_all(set_table.lines(state.step, self._steps, trends))

    def record(self, row: Mapping[str, Any]) -> None:
        """Append a line to metrics.jsonl."""
        if self.enabled:
            self._metrics.record(row)

    def progress_bar(self, label: str, total: int) -> AbstractContextManager[Advance]:
        """Show a second bar for a task that takes a while; the block receives the function that advances the bar.

        Without the first bar, a line is printed every 30 seconds.
        """
        return self._screen.progress_bar(label, total)

    @property
    def is_live(self) -> bool:
        """True while a progress bar is on a terminal."""
        return self._screen.is_live

    def quarantine(self, rows: Sequence[Rejected]) -> None:
        """Add rejected rows to quarantine.jsonl, and print them unless `log.screen` is quiet.

        A row that this run has listed before, also before a restart, is not listed again.
        """
        if self.enabled:
            for row in self._quarantine.add(rows):
                self.say(f"unusable: {row.id}: {row.reason} ({row.detail})")

    def unusable_by_reason(self) -> str:
        """Return a line with the number of rejected rows by reason; "" if there are none."""
        reasons = ", ".join(f"{rows} {reason}" for reason, rows in self._quarantine.by_reason())
        return reasons and f"rows that could not be used: {reasons}; quarantine.jsonl names them"

    def close(self, exit_code: int) -> None:
        """Tell the backends to end, and give them time to store what is left.

        They have 30 s after a run that finished, and 5 s after any other exit code. Their problems are printed.
        """
        deadline = time.monotonic() + (FINISHED_SECONDS if exit_code == FINISHED else STOPPED_SECONDS)
        for process in self._processes:
            process.finish(exit_code)
        for process in self._processes:
            for problem in process.close(deadline):
                self.say(f"warning: {process.name}: {problem}")
        self._processes = []

    def _send(self, part: str, row: Mapping[str, Any], text: str = "") -> None:
        """Send the finite numbers of a row to the backends, and print the problems that they report.

        The figures that matter most are sent a second time, under names that trackers sort first. `text` are sample
        transcripts.
        """
        finite = {
            name: float(value)
            for name, value in row.items()
            if name != "step" and isinstance(value, int | float) and math.isfinite(value)
        }
        main = {f"{MAIN_GROUP}/{name}": value for name, value in finite.items() if name.split("/")[-1] in MAIN_FIGURES}
        figures = main | {f"{part}/{name}": value for name, value in finite.items()}
        for process in self._processes:
            process.send(row["step"], figures, text)
            for problem in process.problems():
                self.say(f"warning: {process.name}: {problem}; training goes on")

    @contextmanager
    def _best_effort(self) -> Iterator[None]:
        """Run a block; an error of the disk in it is counted and not raised, and the first one is reported."""
        try:
            yield
        except (OSError, DiskError) as error:
            self._failures += 1
            if self._failures == 1:
                # Not sys.stderr: rich replaces it while a bar is shown, and may be inside this very write.
                with suppress(OSError):  # stderr may be the same closed pipe
                    say(f"warning: a log could not be written ({error}); training goes on", file=sys.__stderr__)


def identity_of(folder: Path) -> str:
    """Return the identity of the run for its backends; it is made at the first start and kept in the run directory."""
    path = folder / IDENTITY
    if not path.exists():
        atomic.write_text(path, f"{secrets.token_hex(4)}\n")
    return path.read_text(encoding="ascii").strip()
