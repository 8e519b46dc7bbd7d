"""Quarantine of a run (quarantine.jsonl): the list of rows that could not be used, with reasons."""

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from whisper_ft.data.types import Rejected
from whisper_ft.runtime.jsonl import append_rows, rows_with

QUARANTINE = "quarantine.jsonl"


class Quarantine:
    """Writer and reader of quarantine.jsonl. Over all starts of a run, each rejected row is listed once.

    Parameters
        best_effort: context manager that handles the OSErrors of each access.
        is_own: False once the folder is another run's; nothing is then written.
    """

    def __init__(
        self, folder: Path, best_effort: Callable[[], AbstractContextManager[None]], is_own: Callable[[], bool]
    ) -> None:
        self._path, self._best_effort, self._is_own = folder / QUARANTINE, best_effort, is_own
        self._reasons: dict[str, str] | None = None  # reason code by row id; None before the file is read

    def add(self, rows: Sequence[Rejected]) -> list[Rejected]:
        """Write the rows that are not listed yet, and return them, even if they cannot be written.

        If several rows have one id, only the last counts.
        """
        listed = self._listed()
        new = {row.id: row for row in rows if row.id not in listed}
        listed.update((row.id, row.reason) for row in new.values())
        if not self._is_own():
            return list(new.values())
        with self._best_effort():
            append_rows(self._path, [{"id": r.id, "reason": r.reason, "detail": r.detail} for r in new.values()])
        return list(new.values())

    def by_reason(self) -> list[tuple[str, int]]:
        """Return the reason codes with their number of rows, the most frequent first."""
        return Counter(self._listed().values()).most_common()

    def _listed(self) -> dict[str, str]:
        if self._reasons is None:
            self._reasons = {}
            with self._best_effort():
                rows = rows_with(self._path, "id")
                self._reasons = {str(row["id"]): str(row["reason"]) for row in rows if "reason" in row}
        return self._reasons
