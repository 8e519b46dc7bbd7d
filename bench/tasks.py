"""Tasks and results of contenders: a task is one JSON argument, a result is one JSON line."""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

T = TypeVar("T")
Result = dict[str, Any]
BATCH_TENSORS = ("input_features", "decoder_input_ids", "labels", "predicted")  # fields of collator.Batch


@dataclass(frozen=True)
class TrainingTask:
    """Task: update a model on a corpus, with settings that all contenders share."""

    model: str
    data: str
    """Folder of parquet files."""
    batches: str
    """File of train.py's collated batches for these steps."""
    scratch: str
    """Folder of this run alone."""
    language: str
    batch: int
    steps: int
    unmeasured_steps: int
    workers: int
    learning_rate: float


@dataclass(frozen=True)
class CardTask(TrainingTask):
    """Task: train on a device, in a precision."""

    device: str
    precision: str


@dataclass(frozen=True)
class TranscriptionTask:
    """Task: transcribe the first utterances of a set, each once."""

    model: str
    data: str
    texts: str
    """JSON file for the transcripts."""
    language: str
    batch: int
    utterances: int


@dataclass(frozen=True)
class ExactnessTask:
    """Task: update a model on the same global batches, sliced in several ways or interrupted in the middle."""

    model: str
    batches: str
    """The global batches, as `prepare.write_batches` saves them."""
    scratch: str
    """Folder for the trained weights."""
    language: str
    batch: int
    """Utterances per update, over all processes."""
    steps: int
    learning_rate: float
    accumulations: list[int]
    """Forward passes per update and process."""


def to_argument(task: TrainingTask | TranscriptionTask | ExactnessTask) -> str:
    """Return the task as the argument of a contender."""
    return json.dumps(asdict(task))


def from_argument(kind: type[T]) -> T:
    """Read the task of this process from its first argument."""
    return kind(**json.loads(sys.argv[1]))


def answer(result: Mapping[str, Any]) -> None:
    """Print the result as the last line of stdout, where `python -m bench` reads it."""
    print(json.dumps(result), flush=True)


def training_result(
    task: TrainingTask, start: float, ready: float, step_ends: Sequence[float], loss: float
) -> dict[str, Any]:
    """Compute the figures of a training from times in seconds: start of the process, model loaded, end of each step."""
    measured = step_ends[task.unmeasured_steps - 1 :]
    utterances = (len(measured) - 1) * task.batch
    return {
        "utterances_per_second": round(utterances / (measured[-1] - measured[0]), 2),
        "first_step_seconds": round(step_ends[0] - ready, 3),
        "start_to_first_step_seconds": round(step_ends[0] - start, 3),
        "loss": round(loss, 5),
    }
