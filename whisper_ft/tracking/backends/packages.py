"""Tracker packages behind one interface. Each package is imported only in the process of its own backend."""

import html
import importlib.util
import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from whisper_ft.runtime.errors import UsageError

TRANSCRIPTS = "0_main/transcripts"
"""Name of the sample transcripts in every tracker."""


@dataclass(frozen=True)
class RunInfo:
    """Facts about a run that its backends show."""

    folder: str  # absolute path of the run directory
    name: str
    project: str
    config: dict[str, Any]
    identity: str = ""  # distinguishes the run from others of the same name, also over resumes


class Backend(Protocol):
    """Interface of a tracker package with an open run."""

    def __init__(self, run: RunInfo, step: int) -> None:
        """Open the run at the step where this start begins."""

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """Store the figures of a step."""

    def show(self, step: int, text: str) -> None:
        """Store the sample transcripts of an evaluation, plain text of several lines."""

    def close(self, exit_code: int) -> None:
        """Store what is left, and record the exit code of the run."""


def refuse_missing_packages(names: Iterable[str]) -> None:
    """Raise UsageError if the package of a backend is not installed. No package is imported."""
    for name in names:
        package = importlib.util.find_spec(name)
        if package is None or package.origin is None:  # no origin: a folder of that name, which wandb leaves behind
            raise UsageError(f"--track.to {name}: its package is not installed; pip install {name}")


class TensorBoard:
    """Backend that writes event files to RUN_DIR/tensorboard. It needs neither torch nor TensorFlow."""

    def __init__(self, run: RunInfo, step: int) -> None:
        self._proto = import_module("tensorboard.compat.proto.event_pb2")
        self._summary = import_module("tensorboard.compat.proto.summary_pb2")
        writer = import_module("tensorboard.summary.writer.event_file_writer")
        self._writer = writer.EventFileWriter(str(Path(run.folder, "tensorboard")), flush_secs=10)
        # TensorBoard then drops earlier events from this step on, because an interrupted run logs these steps again.
        begin = self._proto.SessionLog(status=self._proto.SessionLog.START)
        self._add(step + 1, session_log=begin)
        self._add(step, summary=self._text("config", json.dumps(run.config, indent=2, ensure_ascii=False)))

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """Write one event with all figures of a step."""
        values = [self._summary.Summary.Value(tag=name, simple_value=value) for name, value in figures.items()]
        self._add(step, summary=self._summary.Summary(value=values))

    def show(self, step: int, text: str) -> None:
        """Write the transcripts for the tab of texts."""
        self._add(step, summary=self._text(TRANSCRIPTS, text))

    def close(self, exit_code: int) -> None:
        """Flush and close the file."""
        self._writer.close()

    def _add(self, step: int, **fields: Any) -> None:
        self._writer.add_event(self._proto.Event(wall_time=time.time(), step=step, **fields))

    def _text(self, tag: str, text: str) -> Any:
        """Format a text for TensorBoard, which shows Markdown: an indent of four spaces makes a block of code."""
        tensor = import_module("tensorboard.compat.proto.tensor_pb2")
        types = import_module("tensorboard.compat.proto.types_pb2")
        metadata = import_module("tensorboard.plugins.text.metadata")
        block = "".join(f"    {line}\n" for line in text.splitlines())
        value = self._summary.Summary.Value(
            tag=tag,
            metadata=metadata.create_summary_metadata(tag, ""),
            tensor=tensor.TensorProto(dtype=types.DT_STRING, string_val=[block.encode()]),
        )
        return self._summary.Summary(value=[value])


class WeightsAndBiases:
    """Backend that logs to a W&B run with the identity from the run directory; local files are in RUN_DIR/wandb."""

    def __init__(self, run: RunInfo, step: int) -> None:
        wandb = import_module("wandb")
        self._wandb = wandb
        self._run = wandb.init(
            project=run.project,
            name=run.name,
            id=run.identity,
            resume="allow",
            dir=run.folder,
            config=run.config,
            settings=wandb.Settings(console="off", disable_git=True, save_code=False),
        )
        # W&B's own step counter only grows, so it would drop the rows of a run that went back to a checkpoint.
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """Log the figures, and the step as one of them."""
        self._run.log({"step": step, **figures})

    def show(self, step: int, text: str) -> None:
        """Log the transcripts as a panel of preformatted text."""
        page = f'<pre style="white-space: pre-wrap">{html.escape(text)}</pre>'
        self._run.log({"step": step, TRANSCRIPTS: self._wandb.Html(page, inject=False)})

    def close(self, exit_code: int) -> None:
        """Finish the run with this exit code."""
        self._run.finish(exit_code=exit_code)


class Trackio:
    """Backend that logs to trackio's own folder (TRACKIO_DIR), where `trackio show` finds the run."""

    def __init__(self, run: RunInfo, step: int) -> None:
        trackio = import_module("trackio")
        self._trackio = trackio
        # trackio knows runs by name alone, and two run directories called `demo` must not become one run.
        name = f"{run.name}-{run.identity}"
        self._run = trackio.init(project=run.project, name=name, config=run.config, resume="allow", embed=False)

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """Log the figures at their step."""
        self._run.log(figures, step=step)

    def show(self, step: int, text: str) -> None:
        """Log the transcripts as a report, which is a block of code, so that no sign in them is Markdown."""
        lines = "".join(f"    {line}\n" for line in text.splitlines())
        self._run.log({TRANSCRIPTS: self._trackio.Markdown(lines)}, step=step)

    def close(self, exit_code: int) -> None:
        """Store what is left."""
        self._run.finish()


BACKENDS: Mapping[str, type[Backend]] = {"tensorboard": TensorBoard, "wandb": WeightsAndBiases, "trackio": Trackio}
