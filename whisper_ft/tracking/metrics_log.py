"""Log of a run: figures of steps and evaluations (metrics.jsonl), and transcripts of evaluations (predictions/)."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from whisper_ft.runtime.errors import DataError, UsageError
from whisper_ft.runtime.jsonl import append_rows, rows_with
from whisper_ft.scoring.predictions import read_predictions
from whisper_ft.scoring.scores import Prediction

METRICS = "metrics.jsonl"


class MetricsLog:
    """Writer and reader of metrics.jsonl and predictions/.

    Parameters
        best_effort: context manager that handles the OSErrors of each access.
        is_own: False once the folder is another run's; nothing is then written.
    """

    def __init__(
        self, folder: Path, best_effort: Callable[[], AbstractContextManager[None]], is_own: Callable[[], bool]
    ) -> None:
        self._folder, self._best_effort, self._is_own = folder, best_effort, is_own

    def record(self, row: Mapping[str, Any]) -> None:
        """Append a line to metrics.jsonl; nothing if the folder is another run's."""
        if not self._is_own():
            return
        with self._best_effort():
            append_rows(self._folder / METRICS, [row])

    def rows(self, steps: Sequence[int], having: str) -> list[dict[str, Any]]:
        """Return the rows of metrics.jsonl for these steps, in this order, if they have the field `having`.

        If a step has several rows, the last one counts. Steps without a row are left out.
        """
        by_step = {}
        with self._best_effort():
            for row in rows_with(self._folder / METRICS, having):
                if isinstance(row.get("step"), int):
                    by_step[row["step"]] = row
        return [by_step[step] for step in steps if step in by_step]

    def predictions(self, step: int, name: str) -> list[Prediction]:
        """Return the transcripts of an evaluation of a set of eval.sets; [] if they are missing or damaged."""
        try:
            return read_predictions(self._path(step, name))
        except (UsageError, DataError):
            return []

    def write_predictions(self, step: int, rows: Sequence[Mapping[str, Any]], name: str = "") -> None:
        """Write the transcripts of an evaluation to predictions/, or of a set of eval.sets to predictions/NAME/.

        A file that the same step has already is replaced. Nothing is written if the folder is another run's.
        """
        if not self._is_own():
            return
        path = self._path(step, name)
        with self._best_effort():
            if name:
                path.parent.mkdir(exist_ok=True)
            path.unlink(missing_ok=True)
        with self._best_effort():
            append_rows(path, rows)

    def _path(self, step: int, name: str) -> Path:
        return self._folder / "predictions" / name / f"step-{step:08d}.jsonl"
