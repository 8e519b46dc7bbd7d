"""Models to choose from: those of a run, of several runs, or a single one. torch is not imported.

Everything is read without a lock and without a write, so a run that trains at the same time is not disturbed. Its
folders get their names once they are complete. A model is chosen by its id, such as `best`, or `RUN/best` where
several runs are served.
"""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from whisper_ft.checkpoint.checkpoint_manifest import MANIFEST
from whisper_ft.checkpoint.format import list_checkpoints
from whisper_ft.checkpoint.record import TRAINER
from whisper_ft.checkpoint.state import Best, read_best
from whisper_ft.models.adapters.adapter_config import ADAPTER_CONFIG, ADAPTER_WEIGHTS, is_adapter
from whisper_ft.runtime.printable import printable
from whisper_ft.training.run_folder import RUN_MODELS, holds_model, is_run
from whisper_ft.web.run_files import evaluations, json_of, logged_step, published_step, runs_in, start_model

Kind = Literal["whole", "adapter", "checkpoint"]
LATEST, START, COMPARE, MODEL = "latest", "start", "compare", "model"
FOLDERS = {
    "best": "best model",
    "best-adapter": "best adapter",
    "final": "model after the last update",
    "final-adapter": "adapter after the last update",
    "average": "average of checkpoints",
    "average-adapter": "average of adapters",
    "interpolated": "mixture with the start model",
}
"""Folders of a run with models, the first one that exists first, and their names for people."""
WATCHED = (
    "config.json",
    "model.safetensors",
    "model.safetensors.index.json",
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    MANIFEST,
)
"""Files whose change means that another model lies in a folder."""

Version = tuple[tuple[str, int, int, int], ...]
"""Name, inode, time and size of the files of a model. It differs once another model lies in the folder."""


@dataclass(frozen=True)
class Choice:
    """A model to choose."""

    id: str
    name: str
    """Name for people."""
    place: str
    """Folder of the model or checkpoint, or a name on the Hub."""
    kind: Kind
    run: str | None = None
    step: int | None = None
    metric: str | None = None
    value: float | None = None
    """Figure of the held-out set at that step, in `metric`."""
    follows: str | None = None
    """Id for which `latest` stands at present."""

    @property
    def version(self) -> Version:
        """State of the files at present; empty for a model on the Hub."""
        return version_of(Path(self.place))

    @property
    def title(self) -> str:
        """Name for people, with step and figure."""
        step = "" if self.step is None else f", step {self.step:,}"
        figure = "" if self.value is None else f", {self.metric} {self.value:.4f}"
        return f"{self.name}{step}{figure}"

    def record(self) -> dict[str, Any]:
        """Return the choice as JSON values."""
        fields = {name: getattr(self, name) for name in ("id", "name", "run", "kind", "step", "metric", "value")}
        time = max((item[2] for item in self.version), default=None)
        fields["time"] = None if time is None else f"{datetime.fromtimestamp(time / 1e9, UTC):%Y-%m-%dT%H:%M:%SZ}"
        return fields | ({} if self.follows is None else {"follows": self.follows})


def version_of(folder: Path) -> Version:
    """Return the state of the files of a model folder."""
    found = []
    for name in WATCHED:
        with suppress(OSError):
            stat = (folder / name).stat()
            found.append((name, stat.st_ino, stat.st_mtime_ns, stat.st_size))
    return tuple(found)


class ServedModels:
    """Models that a server offers. Each call reads the present state of the folders.

    Parameters
        served: run, folder of runs, model folder, checkpoint, or name on the Hub
        compare: a second model, or an id of the first
        hub_adapters: folders of adapters on the Hub, by name
    """

    def __init__(self, served: str, compare: str | None = None, hub_adapters: Mapping[str, str] | None = None) -> None:
        self.served, self._compare, folder = served, compare, Path(served)
        self._hub_adapters = hub_adapters or {}
        if folder.name in ("", ".."):  # a run has the name of its folder
            folder = folder.resolve()
        self.runs = [folder] if is_run(folder) else runs_in(folder)
        self.is_folder_of_runs = bool(self.runs) and self.runs != [folder]

    def choices(self) -> list[Choice]:
        """Return all models, the one to choose first at the beginning."""
        if self.is_folder_of_runs:
            by_run = [list(_prefixed(choices_of_run(run), run.name)) for run in self.present_runs()]
            by_run.sort(key=lambda found: -_newest(found))
            choices = [choice for found in by_run for choice in found]
        elif self.runs:
            choices = choices_of_run(self.runs[0])
        else:
            one = _named(MODEL, Path(self.served).name or self.served, self._place(self.served))
            choices = [replace(one, step=published_step(Path(self.served), None))]
        compared = self.compare_id(choices)
        if self._compare is not None and compared == COMPARE:
            choices.append(replace(_compared(self._compare, self._place(self._compare)), id=COMPARE))
        return choices

    def _place(self, name: str) -> str:
        """Return the folder of an adapter on the Hub; any other name as it is."""
        return self._hub_adapters.get(name, name)

    def find(self, wanted: str) -> Choice | None:
        """Return the model of an id as it is at present; None if there is none. `latest` is the first of all."""
        choices = self.choices()
        found = next((choice for choice in choices if choice.id == wanted), None)
        return choices[0] if found is None and wanted == LATEST and choices else found

    def compare_id(self, choices: list[Choice]) -> str | None:
        """Return the id of the second model, which is the start model if none was named; None if there is none."""
        ids = [choice.id for choice in choices]
        if self._compare is not None:
            return self._compare if self._compare in ids else COMPARE
        return next((name for name in ids if name.rpartition("/")[2] == START), None)

    def run_records(self) -> list[dict[str, Any]]:
        """Return name, state and step of each run as JSON values."""
        records = []
        for run in self.present_runs():
            status = json_of(run / "status.json")
            records.append({"name": run.name, "state": status.get("state"), "step": logged_step(run)})
        return records

    @property
    def is_training(self) -> bool:
        """True if a served run says that it is running."""
        return any(json_of(run / "status.json").get("state") == "running" for run in self.present_runs())

    def present_runs(self) -> list[Path]:
        """Return the run directories that are served at present; [] for a single model."""
        return runs_in(Path(self.served)) if self.is_folder_of_runs else self.runs


def choices_of_run(run: Path) -> list[Choice]:
    """Return the models of a run: the latest, the published ones, checkpoints from the newest on, the start model."""
    best = read_best(run / "best.json")
    metric = best.metric if best else "wer"
    values = {row["step"]: row[metric] for row in evaluations(run, metric) if isinstance(row[metric], int | float)}
    choices = []
    for folder, name in FOLDERS.items():
        place = run / folder
        if holds_model(place):
            step = published_step(place, best if folder.startswith("best") else None)
            choices.append(_choice(folder, name, place, run, step, metric, values, best))
    for listed in list_checkpoints(run / "checkpoints"):
        if listed.problem is None:
            name = f"checkpoint of step {listed.step:,}"
            choices.append(_choice(listed.path.name, name, listed.path, run, listed.step, metric, values, None))
    if start := start_model(run):
        choices.append(
            replace(_named(START, f"start model, {_short(start)}", start), run=run.name, **_figure(0, metric, values))
        )
    first = _latest_of(choices)
    return (
        choices if first is None else [replace(first, id=LATEST, name=_latest_name(first), follows=first.id), *choices]
    )


def _latest_of(choices: list[Choice]) -> Choice | None:
    """Return the model that other programs take for a run; without one, the first of all."""
    by_id = {choice.id: choice for choice in choices}
    return next((by_id[name] for name in RUN_MODELS if name in by_id), choices[0] if choices else None)


def _latest_name(first: Choice) -> str:
    return f"latest {first.name}" if first.id.startswith("best") else f"latest model: {first.name}"


def _choice(
    id: str,
    name: str,
    place: Path,
    run: Path,
    step: int | None,
    metric: str,
    values: Mapping[int, float],
    best: Best | None,
) -> Choice:
    """Return a model of a run, with the figure of its step."""
    if best is not None and best.step == step:
        values = {best.step: best.value}
    return replace(_named(id, name, str(place)), run=run.name, **_figure(step, metric, values))


def _figure(step: int | None, metric: str, values: Mapping[int, float]) -> dict[str, Any]:
    """Return the fields about an evaluated step."""
    value = None if step is None else values.get(step)
    return {"step": step, "metric": None if value is None else metric, "value": value}


def _short(model: str) -> str:
    """Return the name of a model for people: on the Hub with its owner, on the disk that of its folder."""
    return Path(model).name if Path(model).exists() else model


def _named(id: str, name: str, place: str) -> Choice:
    """Return the model in a folder, or on the Hub."""
    folder = Path(place)
    kind: Kind = "checkpoint" if (folder / TRAINER).exists() else "adapter" if is_adapter(folder) else "whole"
    return Choice(id, printable(name), place, kind)


def _compared(name: str, place: str) -> Choice:
    """Return the model of --compare, which is in `place`; of a run, its latest."""
    if is_run(Path(place)) and (choices := choices_of_run(Path(place))):
        return replace(choices[0], name=f"{Path(place).name}: {choices[0].name}", follows=None)
    return _named(COMPARE, Path(name).name or name, place)


def _prefixed(choices: list[Choice], run: str) -> Iterator[Choice]:
    for choice in choices:
        follows = choice.follows and f"{run}/{choice.follows}"
        yield replace(choice, id=f"{run}/{choice.id}", name=f"{run}: {choice.name}", follows=follows)


def _newest(choices: list[Choice]) -> int:
    """Return the time of the first of some models, in nanoseconds; 0 if there is none."""
    return max((item[2] for item in choices[0].version), default=0) if choices else 0
