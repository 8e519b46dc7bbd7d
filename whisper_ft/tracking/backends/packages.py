"""The packages themselves, each behind the same two methods. A tracker's own process imports one of them."""

import json
import time
from importlib import import_module
from pathlib import Path
from typing import Any


class TensorBoard:
    """Event files in RUN_DIR/tensorboard, without torch and TensorFlow."""

    def __init__(self, folder: str, step: int, config: dict[str, Any], **_: Any) -> None:
        self._proto = import_module("tensorboard.compat.proto.event_pb2")
        self._summary = import_module("tensorboard.compat.proto.summary_pb2")
        writer = import_module("tensorboard.summary.writer.event_file_writer")
        self._writer = writer.EventFileWriter(str(Path(folder, "tensorboard")), flush_secs=10)
        # TensorBoard drops what it has from this step on: of a run that was cut off, later steps come again.
        begin = self._proto.SessionLog(status=self._proto.SessionLog.START)
        self._add(step + 1, session_log=begin)
        self._add(step, summary=self._text("config", json.dumps(config, indent=2, ensure_ascii=False)))

    def log(self, step: int, figures: dict[str, float]) -> None:
        """One event with all figures of a step."""
        values = [self._summary.Summary.Value(tag=name, simple_value=value) for name, value in figures.items()]
        self._add(step, summary=self._summary.Summary(value=values))

    def close(self, exit_code: int) -> None:
        """Flush and close the file."""
        self._writer.close()

    def _add(self, step: int, **what: Any) -> None:
        self._writer.add_event(self._proto.Event(wall_time=time.time(), step=step, **what))

    def _text(self, tag: str, text: str) -> Any:
        """A text for TensorBoard's text page; it reads Markdown, where four spaces make a block of code."""
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
    """A run of W&B under the identity in the run directory; what it stores here is in RUN_DIR/wandb."""

    def __init__(self, folder: str, name: str, project: str, identity: str, config: dict[str, Any], **_: Any) -> None:
        wandb = import_module("wandb")
        self._run = wandb.init(
            project=project,
            name=name,
            id=identity,
            resume="allow",
            dir=folder,
            config=config,
            settings=wandb.Settings(console="off", disable_git=True, save_code=False),
        )
        # Its own count of steps only grows, and drops the rows of a run that went back to a checkpoint.
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")

    def log(self, step: int, figures: dict[str, float]) -> None:
        """The figures, with the step beside them."""
        self._run.log({"step": step, **figures})

    def close(self, exit_code: int) -> None:
        """Finish the run with this exit code."""
        self._run.finish(exit_code=exit_code)


class Trackio:
    """A run in trackio's own folder (TRACKIO_DIR), where `trackio show` finds it."""

    def __init__(self, name: str, project: str, identity: str, config: dict[str, Any], **_: Any) -> None:
        trackio = import_module("trackio")
        # It knows runs by their names alone: two run directories called `demo` must not become one run.
        self._run = trackio.init(project=project, name=f"{name}-{identity}", config=config, resume="allow", embed=False)

    def log(self, step: int, figures: dict[str, float]) -> None:
        """The figures at their step."""
        self._run.log(figures, step=step)

    def close(self, exit_code: int) -> None:
        """Store what is left."""
        self._run.finish()


OPEN = {"tensorboard": TensorBoard, "wandb": WeightsAndBiases, "trackio": Trackio}
