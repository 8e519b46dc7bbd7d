"""What a person sees of a run, and what is written down: the screen, metrics.jsonl, quarantine.jsonl.

Best effort: a full log disk or a closed terminal is counted and said once, and never stops a training.
"""

import json
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from whisper_ft.scoring import Scores
from whisper_ft.state import TrainState
from whisper_ft.window import Unusable

RATES = ("wer", "cer", "wer_orthographic", "cer_orthographic", "ser")  # shown in percent


class Pace:
    """Seconds of training and of waiting for data since the last reading; evaluations and saves do not count."""

    def __init__(self) -> None:
        self._training = self._waiting = 0.0
        self._utterances = 0

    @contextmanager
    def training(self) -> Iterator[None]:
        """Around a whole step."""
        begin = time.monotonic()
        yield
        self._training += time.monotonic() - begin

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Around the drawing of a step's data, inside `training`."""
        begin = time.monotonic()
        yield
        self._waiting += time.monotonic() - begin

    def count(self, utterances: int) -> None:
        """Utterances trained on, over all ranks."""
        self._utterances += utterances

    def read(self) -> dict[str, float]:
        """Throughput and share of waiting since the last call."""
        seconds = max(self._training, 1e-9)
        row = {
            "utterances_per_second": round(self._utterances / seconds, 2),
            "data_wait": round(self._waiting / seconds, 4),
        }
        self._training = self._waiting = 0.0
        self._utterances = 0
        return row


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Go on, where rich would end the process: `./launch.sh ... | head` must not stop a training."""
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise BrokenPipeError("the reader of the output is gone")


class Tracker:
    """Screen and files of one run; on every rank but the main one all of it does nothing."""

    def __init__(self, folder: Path, steps: int, enabled: bool) -> None:
        self.enabled = enabled
        self._folder, self._steps = folder, steps
        self._console = _Console(quiet=not enabled)
        self._progress: Progress | None = None
        self._failures = 0
        self._unusable: dict[str, str] | None = None  # reason code of each row in quarantine.jsonl, by id

    @contextmanager
    def live(self, step: int) -> Iterator[None]:
        """A bar of the steps from `step` on, where there is a terminal and there are steps; elsewhere lines."""
        if not (self.enabled and self._console.is_terminal):
            yield
            return
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[told]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self._console) as self._progress:
            if self._steps:
                self._task = self._progress.add_task("training", total=self._steps, completed=step, told="")
            yield
        self._progress = None

    def say(self, text: str) -> None:
        """One line for the user."""
        with self._best_effort():
            self._console.print(escape(text), highlight=False, soft_wrap=True)

    def show(self, renderable: Any) -> None:
        """Something of rich's, such as a table."""
        with self._best_effort():
            self._console.print(renderable)

    def stepped(self, step: int) -> None:
        """Move the bar."""
        if self._progress is not None:
            self._progress.update(self._task, completed=step)

    def step(self, row: Mapping[str, Any]) -> None:
        """A logged step: a line in metrics.jsonl, and on the screen."""
        self.record(row)
        told = (
            f"loss {_shown(row['loss'], '.4f')}  lr {row['lr']:.2e}  grad {_shown(row['grad_norm'], '.2f')}  "
            f"{row['utterances_per_second']:.0f} utt/s  wait {100 * row['data_wait']:.0f} %"
        )
        if self._progress is not None:
            self._progress.update(self._task, told=told)
        else:
            self.say(f"step {row['step']}/{self._steps}  {told}")

    def evaluated(self, state: TrainState, scores: Scores) -> None:
        """An evaluation: a line in metrics.jsonl, the texts in predictions/, and a line on the screen."""
        best = state.best
        self.record({"step": state.step, **scores.summary(), "best": best and best.value})
        self.predictions(state.step, [row.record() for row in scores.rows])
        rate = (
            "no words" if scores.wer is None else f"WER {100 * scores.wer:.2f} %  CER {100 * (scores.cer or 0):.2f} %"
        )
        value = None if best is None else f"{100 * best.value:.2f} %" if best.metric in RATES else f"{best.value:g}"
        compared = "" if best is None else f"; best {best.metric} {value} at step {best.step}"
        compared = "; the best so far" if state.improved else compared
        self.say(f"step {state.step}/{self._steps}  {rate}  on {scores.utterances} utterances{compared}")

    def record(self, row: Mapping[str, Any]) -> None:
        """A line in metrics.jsonl."""
        self._append("metrics.jsonl", [row])

    @contextmanager
    def counting(self, what: str, total: int) -> Iterator[Callable[..., None]]:
        """A second bar for something that takes a while; gives the function that advances it: (done, told="")."""
        if self._progress is None:
            yield lambda done, told="": None
            return
        task = self._progress.add_task(what, total=total, told="")
        progress = self._progress

        def advance(done: int, told: str = "") -> None:
            progress.update(task, advance=done, told=told)

        try:
            yield advance
        finally:
            progress.remove_task(task)

    @property
    def is_live(self) -> bool:
        """Whether there is a bar that somebody could look at."""
        return self._progress is not None

    def quarantine(self, rows: Sequence[Unusable]) -> None:
        """Rows that could not be used: each once in quarantine.jsonl, also over several starts of a run."""
        if not self.enabled:
            return
        known = self._known_unusable()
        new = {row.id: row for row in rows if row.id not in known}
        known.update((row.id, row.reason) for row in new.values())
        self._append("quarantine.jsonl", [{"id": r.id, "reason": r.reason, "detail": r.detail} for r in new.values()])
        for row in new.values():
            self.say(f"unusable: {row.id}: {row.reason} ({row.detail})")

    def unusable_by_reason(self) -> str:
        """For people: how many rows of the run's data could not be used so far, and why; "" if all could."""
        counts = Counter(self._known_unusable().values()).most_common()
        reasons = ", ".join(f"{rows} {reason}" for reason, rows in counts)
        return reasons and f"rows that could not be used: {reasons}; quarantine.jsonl names them"

    def _known_unusable(self) -> dict[str, str]:
        if self._unusable is None:
            self._unusable = _reasons(self._folder / "quarantine.jsonl")
        return self._unusable

    def predictions(self, step: int, rows: Sequence[Mapping[str, Any]]) -> None:
        """What the model wrote at an evaluation."""
        if self.enabled:
            path = self._folder / "predictions" / f"step-{step:08d}.jsonl"
            with self._best_effort():
                path.unlink(missing_ok=True)  # of a branch that was given up
            self._append(f"predictions/{path.name}", rows)

    def _append(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        if not self.enabled or not rows:
            return
        lines = "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)
        with self._best_effort(), (self._folder / name).open("ab+") as file:
            if file.tell() and not _ends_its_line(file):
                file.write(b"\n")  # a kill or a full disk cut the last line: it must not spoil the next one too
            file.write(lines.encode())

    @contextmanager
    def _best_effort(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._failures += 1
            if self._failures == 1:
                with suppress(OSError):  # stderr may be the same closed pipe
                    print(f"warning: a log could not be written ({error}); training goes on", file=sys.stderr)


def _ends_its_line(file: BinaryIO) -> bool:
    file.seek(-1, os.SEEK_END)
    return file.read(1) == b"\n"


def _shown(value: float | None, form: str) -> str:
    return "not finite" if value is None else format(value, form)


def _reasons(path: Path) -> dict[str, str]:
    """Reason by id in a quarantine.jsonl; a line cut short by a kill, also within a letter, is passed over."""
    found = {}
    for line in path.read_bytes().split(b"\n") if path.exists() else []:
        try:
            row = json.loads(line)
            found[str(row["id"])] = str(row["reason"])
        except (ValueError, KeyError, TypeError):
            continue
    return found
