"""The log files of a run: metrics.jsonl, quarantine.jsonl, predictions/. A line of one is whole, or stands alone."""

import json
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, BinaryIO

from whisper_ft.data.types import Rejected

METRICS, QUARANTINE = "metrics.jsonl", "quarantine.jsonl"


class MetricsLog:
    """Lines of JSON in a run directory; `best_effort` is around each writing."""

    def __init__(self, folder: Path, best_effort: Callable[[], AbstractContextManager[None]]) -> None:
        self._folder, self._best_effort = folder, best_effort
        self._unusable: dict[str, str] | None = None  # reason code of each row in quarantine.jsonl, by id

    def record(self, row: Mapping[str, Any]) -> None:
        """A line in metrics.jsonl."""
        self._append(METRICS, [row])

    def recorded(self, steps: Sequence[int], having: str) -> list[dict[str, Any]]:
        """Rows of metrics.jsonl for these steps that have a field, in their order; of several of a step the last."""
        found = {}
        with self._best_effort():
            for line in _lines(self._folder / METRICS, having):
                if isinstance(line.get("step"), int):
                    found[line["step"]] = line
        return [found[step] for step in steps if step in found]

    def quarantine(self, rows: Sequence[Rejected]) -> list[Rejected]:
        """Put rows that could not be used into quarantine.jsonl, once over all starts; those that are new there."""
        known = self._known_unusable()
        new = {row.id: row for row in rows if row.id not in known}
        known.update((row.id, row.reason) for row in new.values())
        self._append(QUARANTINE, [{"id": r.id, "reason": r.reason, "detail": r.detail} for r in new.values()])
        return list(new.values())

    def unusable_by_reason(self) -> list[tuple[str, int]]:
        """Reason codes and how many rows have each, the most frequent first."""
        return Counter(self._known_unusable().values()).most_common()

    def predictions(self, step: int, rows: Sequence[Mapping[str, Any]]) -> None:
        """What the model wrote at an evaluation."""
        path = self._folder / "predictions" / f"step-{step:08d}.jsonl"
        with self._best_effort():
            path.unlink(missing_ok=True)  # of a branch that was given up
        self._append(f"predictions/{path.name}", rows)

    def _known_unusable(self) -> dict[str, str]:
        if self._unusable is None:
            self._unusable = {}
            with self._best_effort():
                rows = _lines(self._folder / QUARANTINE, "id")
                self._unusable = {str(row["id"]): str(row["reason"]) for row in rows if "reason" in row}
        return self._unusable

    def _append(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        if not rows:
            return
        lines = "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)
        with self._best_effort(), (self._folder / name).open("ab+") as file:
            if file.tell() and not _ends_its_line(file):
                file.write(b"\n")  # a kill or a full disk cut the last line: it must not spoil the next one too
            file.write(lines.encode())


def _ends_its_line(file: BinaryIO) -> bool:
    file.seek(-1, os.SEEK_END)
    return file.read(1) == b"\n"


def _lines(path: Path, having: str) -> list[dict[str, Any]]:
    """The objects with a field in a file of lines; one cut short by a kill, also within a letter, is passed over."""
    if not path.is_file():  # nor is a device one, such as /dev/full, which never ends
        return []
    found, name = [], f'"{having}"'.encode()
    with path.open("rb") as file:
        for line in file:
            if name not in line:  # most lines of a long run: they need not be taken apart
                continue
            try:
                row = json.loads(line)
            except ValueError:
                continue
            if isinstance(row, dict) and having in row:
                found.append(row)
    return found
