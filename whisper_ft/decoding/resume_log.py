"""What was transcribed before an evaluation was interrupted: a file for each process, to go on with."""

import json
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from whisper_ft.runtime import atomic
from whisper_ft.scoring.scores import Prediction

FOLDER, JOB = ".parts", "job.json"


class ResumeLog:
    """Predictions of one evaluation, by the utterance's index. `job` says which: those of another one are removed.

    Each process appends to a file of its own, whatever its number and theirs are at the next start. Made by the main
    process with `open`, and by the others with what it found.
    """

    def __init__(self, folder: Path, rank: int, known: dict[int, Prediction]) -> None:
        self.known = known
        self._path = folder / FOLDER / f"rank-{rank}.jsonl"

    @staticmethod
    def open(folder: Path, job: dict[str, Any]) -> dict[int, Prediction]:
        """What is known already of this job; makes its folder. Main process only, which holds it. DiskError."""
        parts = folder / FOLDER
        with atomic.disk_errors(parts):
            if not _is_of(parts / JOB, job):
                atomic.remove(parts)
                parts.mkdir(parents=True)
                atomic.write_json(parts / JOB, job)
            rows = [row for path in sorted(parts.glob("rank-*.jsonl")) for row in _read(path)]
        known = {}
        for row in rows:
            with suppress(TypeError):  # of another version of this program: transcribed again
                known[row["index"]] = Prediction(**row["prediction"])
        return known

    def keep(self, index: int, prediction: Prediction) -> None:
        """Append one prediction; a line that a kill cuts is passed over by `open`."""
        row = json.dumps({"index": index, "prediction": asdict(prediction)})
        # Between line ends: what a kill cut short must not spoil this one too.
        with atomic.disk_errors(self._path), self._path.open("a", encoding="ascii") as file:
            file.write(f"\n{row}\n")

    @staticmethod
    def close(folder: Path) -> None:
        """Remove what the finished evaluation no longer needs. Main process only."""
        atomic.remove(folder / FOLDER)


def _is_of(path: Path, job: dict[str, Any]) -> bool:
    try:
        return bool(json.loads(path.read_text(encoding="utf-8")) == job)
    except (OSError, ValueError):
        return False


def _read(path: Path) -> list[Any]:
    """The JSON lines of a file, without what is none."""
    found = []
    for line in path.read_bytes().split(b"\n"):
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found
