"""What a contender is told and what it answers: one JSON argument, one JSON line."""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

T = TypeVar("T")
Result = dict[str, Any]
BATCH_TENSORS = ("input_features", "decoder_input_ids", "labels", "predicted")  # of a collator.Batch


@dataclass(frozen=True)
class TrainingTask:
    """So many updates of a model on a corpus; the settings that all contenders share."""

    model: str
    data: str
    """Folder of parquet files."""
    batches: str
    """The batches of train.py for these very steps, collated."""
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
    """The same on a device, in a precision."""

    device: str
    precision: str


@dataclass(frozen=True)
class WaysTask(TrainingTask):
    """The same, and a transcription of a few utterances by a model that has learned."""

    taught: str
    test: str
    """Folder of parquet files."""
    utterances: int
    times: int


@dataclass(frozen=True)
class TranscriptionTask:
    """Every utterance of a set, once."""

    model: str
    data: str
    texts: str
    """JSON file for what was written; of evaluate.py itself its folder."""
    language: str
    batch: int
    utterances: int
    """Of the set, the first so many."""


@dataclass(frozen=True)
class ExactnessTask:
    """The same updates on the same global batches, sliced in several ways; or interrupted in the middle."""

    model: str
    batches: str
    """The global batches, as `prepare.write_batches` saves them."""
    scratch: str
    """Folder for the weights that come out."""
    language: str
    batch: int
    """Utterances per update, over all processes."""
    steps: int
    learning_rate: float
    accumulations: list[int]
    """Forward passes per update and process."""


Task = TrainingTask | TranscriptionTask | ExactnessTask


def to_argument(task: Task) -> str:
    """The task as a contender's only argument."""
    return json.dumps(asdict(task))


def from_argument(kind: type[T]) -> T:
    """The task this process was given."""
    return kind(**json.loads(sys.argv[1]))


def answer(result: Mapping[str, Any]) -> None:
    """The line that `python -m bench` reads: the last on stdout."""
    print(json.dumps(result), flush=True)


def training_result(
    task: TrainingTask, began: float, ready: float, step_ends: Sequence[float], loss: float
) -> dict[str, Any]:
    """Figures of a training, from its moments in seconds: process begun, model loaded, end of each step."""
    measured = step_ends[task.unmeasured_steps - 1 :]
    utterances = (len(measured) - 1) * task.batch
    return {
        "utterances_per_second": round(utterances / (measured[-1] - measured[0]), 2),
        "first_step_seconds": round(step_ends[0] - ready, 3),
        "start_to_first_step_seconds": round(step_ends[0] - began, 3),
        "loss": round(loss, 5),
    }
