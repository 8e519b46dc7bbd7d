"""Everything that is told of a run goes through here, on the main rank."""

import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any, Self

from whisper_ft.checkpoint.state import TrainState
from whisper_ft.config.training import Screen as Mode
from whisper_ft.config.training import TrainingConfig
from whisper_ft.config.tree import to_plain
from whisper_ft.data.types import Rejected
from whisper_ft.runtime.errors import FINISHED
from whisper_ft.scoring.scores import Scores
from whisper_ft.tracking.backends.process import Ready, TrackerProcess, identity_of, refuse_missing
from whisper_ft.tracking.console import eval_table
from whisper_ft.tracking.console.screen import Screen
from whisper_ft.tracking.console.stdout import Output
from whisper_ft.tracking.console.step_line import figures_of
from whisper_ft.tracking.console.transcripts import transcript_lines, transcripts
from whisper_ft.tracking.metrics_log import MetricsLog

LAST_SECONDS = 30.0  # for the trackers of a run that is finished
LAST_SECONDS_IN_HASTE = 5.0  # of one that was stopped: a machine that is taken away gives little time


class Tracker:
    """Screen, files and outside trackers of one run; on every rank but the main one all of it does nothing."""

    def __init__(
        self,
        folder: Path,
        steps: int,
        enabled: bool,
        screen: Mode = "auto",
        outside: Sequence[str] = (),
        ready: Ready | None = None,
    ) -> None:
        self.enabled = enabled
        self._folder, self._steps = folder, steps
        self._failures = 0
        self._files = MetricsLog(folder, self._best_effort)
        self._screen = Screen(Output(self._best_effort), steps, enabled=enabled, mode=screen)
        self._outside, self._ready = outside if enabled else (), ready or {}
        self._links: list[TrackerProcess] = []

    @classmethod
    def of_run(cls, config: TrainingConfig, steps: int, *, enabled: bool) -> Self:
        """The tracker that a run's configuration asks for. UsageError where a package of it is missing."""
        outside = list(dict.fromkeys(config.track.to))
        if enabled:
            refuse_missing(outside)
        ready = {
            "folder": str(config.run_dir.resolve()),
            "name": config.track.name or config.run_dir.resolve().name,
            "project": config.track.project,
            "config": to_plain(config),
        }
        return cls(config.run_dir, steps, enabled, config.log.screen, outside, ready)

    @contextmanager
    def live(self, step: int) -> Iterator[None]:
        """Around all that is done from `step` on: a bar, where there is a terminal, and the outside trackers."""
        with self._best_effort():
            ready = {**self._ready, "identity": identity_of(self._folder)} if self._outside else {}
            for name in self._outside:
                self._links.append(TrackerProcess(name, ready, step))
        with self._screen.live(step):
            yield

    def say(self, text: str, always: bool = False) -> None:
        """One line for the user; where the screen is quiet, only a `warning: ...` and what is said `always`."""
        self._screen.say(text, always)

    def show(self, renderable: Any) -> None:
        """Something of rich's, such as a table."""
        self._screen.show(renderable)

    def stepped(self, step: int) -> None:
        """Move the bar."""
        self._screen.stepped(step)

    def step(self, row: Mapping[str, Any]) -> None:
        """A logged step: a line in metrics.jsonl, on the screen, and to the outside trackers."""
        self.record(row)
        self._screen.step(row["step"], figures_of(row, self._screen.seconds_left()))
        self._send("train", row)

    def evaluated(self, state: TrainState, scores: Scores) -> None:
        """An evaluation: a line in metrics.jsonl, the texts in predictions/, rates and samples on the screen."""
        if not self.enabled:
            return
        best, summary = state.best, scores.summary()
        earlier = self._files.recorded([step for step, _ in state.evaluated if step < state.step], having="wer")
        self.record({"step": state.step, **summary, "best": best and best.value})
        self._files.predictions(state.step, [row.record() for row in scores.rows])
        if self._screen.console.is_terminal:
            self.show(eval_table.table(state, self._steps, scores, earlier))
            self.show(transcripts(scores, self._screen.console.width))
        else:
            self.say(eval_table.line(state, self._steps, scores, earlier))
            for line in transcript_lines(scores):
                self.say(line)
        self._send("eval", {"step": state.step, **summary})

    def record(self, row: Mapping[str, Any]) -> None:
        """A line in metrics.jsonl."""
        if self.enabled:
            self._files.record(row)

    def counting(self, what: str, total: int) -> AbstractContextManager[Callable[..., None]]:
        """A second bar for something that takes a while; gives the function that advances it: (done, told="")."""
        return self._screen.counting(what, total)

    @property
    def is_live(self) -> bool:
        """Whether there is a bar that somebody could look at."""
        return self._screen.is_live

    def quarantine(self, rows: Sequence[Rejected]) -> None:
        """Rows that could not be used: each once in quarantine.jsonl, also over several starts of a run."""
        if self.enabled:
            for row in self._files.quarantine(rows):
                self.say(f"unusable: {row.id}: {row.reason} ({row.detail})")

    def unusable_by_reason(self) -> str:
        """For people: how many rows of the run's data could not be used so far, and why; "" if all could."""
        reasons = ", ".join(f"{rows} {reason}" for reason, rows in self._files.unusable_by_reason())
        return reasons and f"rows that could not be used: {reasons}; quarantine.jsonl names them"

    def close(self, exit_code: int) -> None:
        """Let the outside trackers store what is left, up to a deadline."""
        deadline = time.monotonic() + (LAST_SECONDS if exit_code == FINISHED else LAST_SECONDS_IN_HASTE)
        for link in self._links:
            link.finish(exit_code)
        for link in self._links:
            for trouble in link.close(deadline):
                self.say(f"warning: {link.name}: {trouble}")
        self._links = []

    def _send(self, part: str, row: Mapping[str, Any]) -> None:
        """The numbers of a row to the outside trackers, and what those have to complain about to the user."""
        figures = {
            f"{part}/{name}": float(value)
            for name, value in row.items()
            if name != "step" and isinstance(value, int | float) and math.isfinite(value)
        }
        for link in self._links:
            link.send(row["step"], figures)
            for trouble in link.complaints():
                self.say(f"warning: {link.name}: {trouble}; training goes on")

    @contextmanager
    def _best_effort(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._failures += 1
            if self._failures == 1:
                # Not sys.stderr, behind which a live screen stands that may be in the middle of this very write.
                with suppress(OSError):  # it may be the same closed pipe
                    print(f"warning: a log could not be written ({error}); training goes on", file=sys.__stderr__)
