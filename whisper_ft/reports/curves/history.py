"""History of a run: logged steps and evaluations, read from its directory."""

import json
import math
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from whisper_ft.config import yaml12
from whisper_ft.runtime.errors import UsageError
from whisper_ft.scoring.set_figures import ALWAYS, figures_of_set, names_of_sets

Row = dict[str, Any]
LOGGED, EVALUATED = "loss", ALWAYS  # a field that every row of the kind has, even if its value is null


@dataclass(frozen=True)
class Curve:
    """Rows of one kind (logged steps, or evaluations) in the order of steps, joined over all starts of the run."""

    rows: list[Row]
    abandoned: list[list[Row]]
    """Rows after the step where a resume began. Each branch begins with the last row that the curve kept."""

    def __bool__(self) -> bool:
        return bool(self.rows)

    @property
    def headline(self) -> str:
        """Name of the main rate of evaluations: `cer` if the language is written without spaces, else `wer`."""
        return "cer" if any(row.get("unit") == "characters" for row in self.rows) else "wer"

    def values(self, name: str, rows: Sequence[Row] | None = None) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Return a field of each row as a number; NaN if it is missing, null or not a number."""
        return np.array([_number(row.get(name)) for row in (self.rows if rows is None else rows)], np.float64)


@dataclass(frozen=True)
class History:
    """Logs of one run, which may be finished or not."""

    path: Path
    logged: Curve
    evaluated: Curve
    """Evaluations of the held-out set."""
    sets: dict[str, Curve]
    """Evaluations of each set of eval.sets, by its name; the rows have plain names such as `wer`."""
    resumed: list[int]
    """Steps at which the run was resumed, in the order of time."""
    cut_lines: int
    """Number of lines that a kill or a full disk cut off; they are ignored."""
    state: str
    planned_steps: int | None
    """Steps of the whole run; None if it was given in epochs, or is unknown."""

    def __bool__(self) -> bool:
        return any(self.curves)

    @property
    def curves(self) -> list[Curve]:
        """All curves: logged steps, and evaluations of each set."""
        return [self.logged, self.evaluated, *self.sets.values()]

    @property
    def step(self) -> int:
        """The last step that was logged or evaluated; 0 if there is none."""
        return max((curve.rows[-1]["step"] for curve in self.curves if curve), default=0)

    @property
    def headline(self) -> str:
        """Name of the main rate of the held-out set."""
        return self.evaluated.headline

    @property
    def lowest(self) -> Row | None:
        """The evaluation with the lowest main rate, the first one in a tie; None if there is no rate.

        The model before the first update does not count.
        """
        known = [row for row in self.evaluated.rows if row["step"] and math.isfinite(_number(row.get(self.headline)))]
        return min(known, key=lambda row: float(row[self.headline]), default=None)


def run_of(model: str) -> Path | None:
    """Return the run directory that is given in place of a model, or that a model folder or checkpoint belongs to.

    None for any other model.
    """
    path = Path(model)
    return next((folder for folder in (path, *path.parents[:2]) if (folder / "metrics.jsonl").is_file()), None)


def read_history(run: Path) -> History:
    """Read a run directory, even while the run trains. Raises UsageError if no run ever began there.

    Also raised if a file cannot be read. A missing or damaged status.json gives the state `unknown`.
    """
    metrics, status, config = run / "metrics.jsonl", run / "status.json", run / "config.yaml"
    if not metrics.is_file() and not status.is_file():
        missing = (
            "there is no such folder" if not run.exists() else "is no run directory, because it has no metrics.jsonl"
        )
        raise UsageError(f"{run}: {missing}")
    try:
        lines = metrics.read_bytes().split(b"\n") if metrics.is_file() else []
        state, planned = _state(status), _planned(config)
    except OSError as error:
        raise UsageError(f"{run}: cannot be read ({error.strerror or error})") from error
    last = lines.pop() if lines else b""  # text behind the last line end is a line still being written
    rows, cut = _rows([*lines, last] if _row_of(last) else lines)
    return History(
        path=run,
        logged=joined(rows, LOGGED),
        evaluated=joined(rows, EVALUATED),
        sets={name: joined(_rows_of_set(rows, name), EVALUATED) for name in names_of_sets(rows)},
        resumed=[row["step"] for row in rows if row.get("event") == "resumed"],
        cut_lines=cut,
        state=state,
        planned_steps=planned,
    )


def joined(rows: Iterable[Row], kind: str) -> Curve:
    """Join the rows of a kind, LOGGED or EVALUATED, to a curve. Rows that a resume abandoned are kept as branches.

    A row whose step does not ascend also counts as a resume. Logs are best effort, so the line of the resume may be
    lost.
    """
    kept: list[Row] = []
    abandoned: list[list[Row]] = []

    def go_back_to(step: int) -> None:
        keep = bisect_right(kept, step, key=lambda row: row["step"])
        if keep < len(kept):
            abandoned.append(kept[max(keep - 1, 0) :])
            del kept[keep:]

    for row in rows:
        if row.get("event") == "resumed":
            go_back_to(row["step"])
        elif kind in row:
            go_back_to(row["step"] - 1)
            kept.append(row)
    return Curve(kept, abandoned)


def _rows_of_set(rows: Iterable[Row], name: str) -> Iterator[Row]:
    """Yield the evaluations of a set, and the events of the run."""
    return (row if "event" in row else figures_of_set(row, name) for row in rows)


def _rows(lines: Iterable[bytes]) -> tuple[list[Row], int]:
    """Parse the rows of steps. Returns them and the number of lines that were cut off."""
    rows, cut = [], 0
    for line in filter(bytes.strip, lines):
        if row := _row_of(line):
            rows.append(row)
        elif row is None:
            cut += 1
    return rows, cut


def _row_of(line: bytes) -> Row | None:
    """Parse a line as the row of a step; {} for a complete line without a step, None for a line that was cut off."""
    try:
        row = json.loads(line)
    except ValueError:
        return None
    is_step = isinstance(row, dict) and isinstance(row.get("step"), int) and row["step"] >= 0
    return row if is_step else {}


def _number(value: object) -> float:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if is_number and math.isfinite(value) else math.nan  # type: ignore[arg-type]


def _state(status: Path) -> str:
    try:
        state = json.loads(status.read_bytes()).get("state")
    except (FileNotFoundError, ValueError, AttributeError):
        return "unknown"
    return state if isinstance(state, str) else "unknown"


def _planned(config: Path) -> int | None:
    try:
        steps = yaml12.load(config.read_text(encoding="utf-8")).get("steps")
    except (FileNotFoundError, ValueError, AttributeError, yaml12.Error):
        return None
    return steps if isinstance(steps, int) and not isinstance(steps, bool) else None
