"""Resume log of an evaluation: predictions so far, one file per process, so that the next start can continue."""

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from whisper_ft.config.data import NamedSourceConfig, SourceConfig
from whisper_ft.decoding.eval_protocol import EvalProtocol
from whisper_ft.runtime import atomic
from whisper_ft.scoring.scores import Prediction

FOLDER, JOB = ".parts", "job.json"
PLACES = ("path", "audio_root", "allowed_folders")  # settings of a set that say where it lies


def job_of(
    model: str, source: NamedSourceConfig, protocol: EvalProtocol, columns: Sequence[str], label_space: str | None
) -> dict[str, Any]:
    """Return everything on which a prediction depends, as JSON values. An evaluation continues only if it is equal.

    Parameters
        model: hash of the weights.
        source: the set. Its paths do not count, because the same data may lie elsewhere, nor does its name.
        columns: columns of the data that predictions contain.
        label_space: `leading_space` of the labels; None if no losses are computed.
    """
    names = [inner.name for inner in fields(SourceConfig) if inner.name not in PLACES]
    identity = {name: getattr(source, name) for name in names}
    job = {"model": model, "source": identity, **protocol.to_json()}
    job |= {"columns": [*columns]} if columns else {}
    job |= {"long": source.long} if source.is_long else {}
    return job | ({"loss": label_space} if label_space else {})


class ResumeLog:
    """Predictions of one evaluation so far, by the index of the utterance in the set.

    The main process calls `open` and broadcasts the result; then every process makes its own log from it. Each process
    appends to its own file. The next start may have another number of processes.
    """

    def __init__(self, folder: Path, rank: int, known: dict[int, Prediction]) -> None:
        self.known = known
        self._path = folder / FOLDER / f"rank-{rank}.jsonl"

    @staticmethod
    def open(folder: Path, job: dict[str, Any]) -> dict[int, Prediction]:
        """Read the predictions of this job. Predictions of any other job in the folder are removed.

        Only for the main process, which must hold the folder's lock. `job` identifies weights, data and decoding as
        JSON values. Raises DiskError if the folder cannot be read or written.
        """
        logs = folder / FOLDER
        with atomic.disk_errors(logs):
            if not _is_job(logs / JOB, job):
                atomic.remove(logs)
                logs.mkdir(parents=True)
                atomic.write_json(logs / JOB, job)
            rows = [row for path in sorted(logs.glob("rank-*.jsonl")) for row in _read_rows(path)]
        known = {}
        for row in rows:
            with suppress(TypeError):  # a row of another version of this program is transcribed again
                known[row["index"]] = Prediction(**row["prediction"])
        return known

    def append(self, index: int, prediction: Prediction) -> None:
        """Append one prediction to the file. A line that a killed process left incomplete is skipped by `open`.

        `known` stays as it is. Raises DiskError if the file cannot be written.
        """
        row = json.dumps({"index": index, "prediction": asdict(prediction)})
        # The leading line end separates this row from one that a kill cut short.
        with atomic.disk_errors(self._path), self._path.open("a", encoding="ascii") as file:
            file.write(f"\n{row}\n")

    @staticmethod
    def close(folder: Path) -> None:
        """Remove the logs of a finished evaluation. Only for the main process."""
        atomic.remove(folder / FOLDER)


def _is_job(path: Path, job: dict[str, Any]) -> bool:
    try:
        return bool(json.loads(path.read_text(encoding="utf-8")) == job)
    except (OSError, ValueError):
        return False


def _read_rows(path: Path) -> list[Any]:
    """Read the rows of a JSON Lines file; damaged lines are skipped."""
    rows = []
    for line in path.read_bytes().split(b"\n"):
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return rows
