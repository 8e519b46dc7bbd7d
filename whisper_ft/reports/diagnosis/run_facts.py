"""Facts about a run, read from the files that it wrote: figures, settings, state, transcripts and checkpoints.

Nothing is locked, so the run may train meanwhile. A file that is missing is named in `missing`, and the rules that need
it have nothing to say.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from whisper_ft.checkpoint.format import list_checkpoints
from whisper_ft.checkpoint.record import CheckpointRecord, read_record
from whisper_ft.config import yaml12
from whisper_ft.config.tree import flatten
from whisper_ft.reports.curves.history import History, Row, read_history
from whisper_ft.reports.diagnosis.data_sample import DataSample
from whisper_ft.reports.diagnosis.loss_curve import LossCurve, number
from whisper_ft.runtime.errors import ResumeError, UsageError
from whisper_ft.runtime.jsonl import rows_with
from whisper_ft.runtime.regular_file import read_regular, strict_json
from whisper_ft.scoring.normalizer import Unit
from whisper_ft.scoring.scores import CHARACTERS, LOSS, WORDS, Scores
from whisper_ft.scoring.stored_scores import stored_scores

SMALL = 1 << 20  # bytes of the largest status.json, config.yaml or config.json that is read
MODELS = ("best", "final", "best-adapter", "final-adapter")  # folders of a run that hold a config.json


@dataclass(frozen=True)
class RunFacts:
    """Everything that the rules of a diagnosis look at."""

    run: Path
    history: History
    settings: Mapping[str, Any]
    """Settings of the run by dotted name; {} without a config.yaml."""
    status: Mapping[str, Any]
    """Fields of status.json; {} without one."""
    records: Sequence[CheckpointRecord] = ()
    """Records of the checkpoints that are left, in the order of their saves."""
    texts: Mapping[int, Scores] = field(default_factory=dict)
    """Transcripts of the held-out set by step: of the start model, of the best evaluation and of the newest."""
    set_texts: Mapping[str, Scores] = field(default_factory=dict)
    """Newest transcripts of each set of eval.sets."""
    rejected: Counter[str] = field(default_factory=Counter)
    """Unusable rows in quarantine.jsonl by reason code."""
    width: int | None = None
    """Width of the model (`d_model`), which tells the sizes of Whisper apart; None if it is not known."""
    sample: DataSample | None = None
    """Training data, if it could be read again."""
    suppressed: frozenset[str] | None = None
    """Characters that are tokens which the model may never write; None if its files could not be read."""
    heard: Counter[str] = field(default_factory=Counter)
    """Held-out clips by the language that the start model detects in them; empty if it was not asked."""
    missing: Sequence[str] = ()
    """A line for each part that could not be looked at, with the reason."""

    def setting(self, name: str, default: Any = None) -> Any:
        """Return the value of a setting; `default` if the run does not record it."""
        value = self.settings.get(name)
        return default if value is None else value

    @cached_property
    def loss(self) -> LossCurve:
        """Curve of the training loss."""
        return LossCurve.of(self.history.logged)

    @property
    def is_over(self) -> bool:
        """True if the run finished, so that its end can be judged. Without a state, all planned steps must be done."""
        planned = self.planned_steps
        is_done = self.history.state == "unknown" and planned is not None and self.step >= planned
        return bool(self.history.state == "finished" or is_done)

    @property
    def evaluations(self) -> list[Row]:
        """Evaluations of the held-out set after the first update, in order."""
        return [row for row in self.history.evaluated.rows if row["step"] > 0]

    @property
    def start(self) -> Row | None:
        """Evaluation of the start model; None if it was not made."""
        return next((row for row in self.history.evaluated.rows if row["step"] == 0), None)

    @property
    def headline(self) -> str:
        """Name of the main rate: `wer`, or `cer` if the language is written without spaces."""
        return self.history.headline

    def rate(self, row: Row | None) -> float | None:
        """Return the main rate of an evaluation; None if it is not known."""
        return None if row is None else number(row.get(self.headline))

    @property
    def last_rate(self) -> float | None:
        """Main rate of the newest evaluation after the first update."""
        return self.rate(self.evaluations[-1]) if self.evaluations else None

    @property
    def held_out_losses(self) -> list[tuple[int, float]]:
        """Step and held-out loss of each evaluation after the first update that has one."""
        pairs = [(row["step"], number(row.get(LOSS))) for row in self.evaluations]
        return [(step, value) for step, value in pairs if value is not None and value > 0]

    @property
    def start_loss(self) -> float | None:
        """Held-out loss of the start model."""
        return number(self.start.get(LOSS)) if self.start else None

    @property
    def last_texts(self) -> Scores | None:
        """Transcripts of the newest evaluation after the first update."""
        steps = [step for step in self.texts if step > 0]
        return self.texts[max(steps)] if steps else None

    @property
    def record(self) -> CheckpointRecord | None:
        """Record of the newest checkpoint."""
        return self.records[-1] if self.records else None

    @property
    def rows(self) -> int | None:
        """Rows of the training data, as the newest checkpoint or the sample says."""
        rows = self.record.data.get("rows") if self.record else None
        parts = self.record.data.get("sources") if self.record else None
        if not isinstance(rows, int) and isinstance(parts, list):
            rows = sum(part.get("rows", 0) for part in parts if isinstance(part, dict))
        return rows if isinstance(rows, int) and rows > 0 else self.sample.rows if self.sample else None

    def passes(self, step: float) -> float | None:
        """Return how often a row was used up to a step, on average; None if the size of the data is not known."""
        size = number(self.setting("batch.size"))
        return None if self.rows is None or size is None else step * size / self.rows

    @property
    def planned_steps(self) -> int | None:
        """Updates of the whole run; None if it was given in epochs and the size of the data is not known."""
        if self.history.planned_steps is not None:
            return self.history.planned_steps
        epochs, size = number(self.setting("epochs")), number(self.setting("batch.size"))
        if epochs is None:
            return None
        return -(-round(epochs * self.rows) // int(size)) if self.rows and size else None

    @property
    def step(self) -> int:
        """Newest step that the run is known to have reached."""
        reached = self.status.get("step")
        return max(self.history.step, reached if isinstance(reached, int) else 0)

    @property
    def peak_rate(self) -> float | None:
        """Peak learning rate: the setting, or the highest one that was logged."""
        given = number(self.setting("optim.lr"))
        logged = [value for row in self.history.logged.rows if (value := number(row.get("lr"))) is not None]
        return given if given is not None else max(logged, default=None)

    @property
    def has_adapter(self) -> bool:
        """True if the run trains an adapter and not the model itself."""
        return bool(self.setting("adapter.kind", "none") != "none")


def read_run_facts(run: Path) -> RunFacts:
    """Read a run directory. Raises UsageError if no run ever began there, or its metrics.jsonl cannot be read."""
    history = read_history(run)
    missing: list[str] = []
    settings = _settings(run, missing)
    status = _json(run / "status.json")
    if not status:
        missing.append("state of the run: status.json is missing or damaged")
    if not history.evaluated:
        missing.append("rates and transcripts of a held-out set: the run has no evaluation (eval.path, eval.split)")
    elif all(number(row.get(LOSS)) is None for row in history.evaluated.rows):
        missing.append("held-out loss: the evaluations have none (eval.with_loss)")
    if history.evaluated and history.evaluated.rows[0]["step"] > 0:
        missing.append("the start model: it was not scored (eval.at_start)")
    records = _records(run, missing)
    texts = _held_out_texts(run, history, missing)
    return RunFacts(
        run=run,
        history=history,
        settings=settings,
        status=status,
        records=records,
        texts=texts,
        set_texts=_set_texts(run, history),
        rejected=_rejected(run),
        width=_width(run, settings),
        missing=missing,
    )


def _settings(run: Path, missing: list[str]) -> dict[str, Any]:
    with suppress(OSError, ValueError, AttributeError, yaml12.Error):
        return flatten(yaml12.load(read_regular(run / "config.yaml", SMALL).decode("utf-8")))
    missing.append("settings: config.yaml is missing or damaged")
    return {}


def _json(path: Path) -> dict[str, Any]:
    with suppress(OSError, ValueError):
        value = strict_json(read_regular(path, SMALL))
        return value if isinstance(value, dict) else {}
    return {}


def _records(run: Path, missing: list[str]) -> list[CheckpointRecord]:
    records = []
    for listed in reversed(list_checkpoints(run / "checkpoints")):
        with suppress(OSError, ResumeError):
            records.append(read_record(listed.path))
    if not records:
        missing.append("size of the data, and changes on resume: no checkpoint can be read")
    return records


def _held_out_texts(run: Path, history: History, missing: list[str]) -> dict[int, Scores]:
    """Read the transcripts of the start model, of the best evaluation and of the newest one."""
    steps = [row["step"] for row in history.evaluated.rows]
    best = history.lowest
    wanted = {*steps[:1], *steps[-1:], *([best["step"]] if best else [])}
    found = {step: _texts(run / "predictions", step, _unit(history.headline)) for step in sorted(wanted)}
    texts = {step: scores for step, scores in found.items() if scores is not None}
    if steps and steps[-1] not in texts:
        missing.append(f"transcripts: predictions/step-{steps[-1]:08d}.jsonl is missing or damaged")
    return texts


def _set_texts(run: Path, history: History) -> dict[str, Scores]:
    texts = {}
    for name, curve in history.sets.items():
        steps = [row["step"] for row in curve.rows if row["step"] > 0]
        scores = _texts(run / "predictions" / name, steps[-1], _unit(curve.headline)) if steps else None
        if scores is not None:
            texts[name] = scores
    return texts


def _unit(headline: str) -> Unit:
    return CHARACTERS if headline == "cer" else WORDS


def _texts(folder: Path, step: int, unit: Unit) -> Scores | None:
    with suppress(OSError):
        return stored_scores(folder / f"step-{step:08d}.jsonl", unit)
    return None


def _rejected(run: Path) -> Counter[str]:
    try:
        return Counter(str(row.get("reason")) for row in rows_with(run / "quarantine.jsonl", "id"))
    except OSError:
        return Counter()


def _width(run: Path, settings: Mapping[str, Any]) -> int | None:
    """Return the width of the model, from a model folder of the run or from the start model if it is a folder."""
    folders = [run / name for name in MODELS]
    if name := settings.get("model.name"):
        folders.append(Path(str(name)))
    for folder in folders:
        width = _json(folder / "config.json").get("d_model")
        if isinstance(width, int):
            return width
    return SIZES.get(str(settings.get("model.name")).rpartition("/")[2])


SIZES = {
    f"whisper-{name}{suffix}": width
    for name, width in {"tiny": 384, "base": 512, "small": 768, "medium": 1024, "large": 1280}.items()
    for suffix in ("", ".en", "-v1", "-v2", "-v3", "-v3-turbo")
}
"""Width of OpenAI's models by the last part of their name, for a run without a model folder."""


def refuse_empty(facts: RunFacts) -> None:
    """Raise UsageError for a run that has not logged anything and has not ended, which nothing can be said about."""
    if not facts.history and facts.status.get("state") in (None, "running"):
        raise UsageError(f"{facts.run}: nothing was logged yet; the first line comes after log.every")
