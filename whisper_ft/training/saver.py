"""Checkpoint saves during training, in the foreground or in a thread."""

import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import accelerate
import torch
import transformers

from whisper_ft.checkpoint.record import Branch, CheckpointRecord
from whisper_ft.checkpoint.retention import retain
from whisper_ft.checkpoint.state import TrainState
from whisper_ft.checkpoint.writer import write
from whisper_ft.config.training import TrainingConfig
from whisper_ft.config.tree import to_plain
from whisper_ft.optim.schedule import learning_rate
from whisper_ft.runtime.collectives import Collectives
from whisper_ft.tracking.tracker import Tracker
from whisper_ft.training.averaging import steps_to_average
from whisper_ft.training.data import TrainingData
from whisper_ft.training.directory import RunDir
from whisper_ft.training.learner import Learner
from whisper_ft.training.published_models import publish_best


@dataclass(frozen=True)
class Lineage:
    """Relation of the next checkpoints to the earlier ones of the run."""

    parent: str | None = None
    """Name of the checkpoint that the next one follows."""
    branch: Branch | None = None
    """Note of the `--resume` with which the run began, unless it was auto."""
    resumed_steps: frozenset[int] = frozenset()
    """Step of the checkpoint that this process resumed; its checkpoint is never removed."""
    eval_protocol: dict[str, object] | None = None
    """Protocol of the evaluations that the state records, in JSON values."""
    set_protocols: dict[str, dict[str, object]] = field(default_factory=dict)
    """The same for each set of eval.sets, by name."""


@dataclass(frozen=True)
class FinishedSave:
    """Result of a save."""

    path: Path
    bytes: int
    seconds: float
    warnings: list[str] = field(default_factory=list)


class Saver:
    """Saver of a run: writes checkpoints, publishes the best model, removes old checkpoints. Rank 0 writes for all."""

    def __init__(
        self,
        config: TrainingConfig,
        data: TrainingData,
        learner: Learner,
        collectives: Collectives,
        directory: RunDir,
        tracker: Tracker,
        lineage: Lineage,
    ) -> None:
        self._config, self._data, self._learner = config, data, learner
        self._collectives, self._directory, self._tracker = collectives, directory, tracker
        self._lineage, self._parent = lineage, lineage.parent

    def is_wanted(self, state: TrainState) -> bool:
        """Return True if the weights of this step are needed later, as the best model or for the average."""
        return state.improved or state.step in steps_to_average(state, self._config, self._data.steps)

    def save(self, state: TrainState) -> TrainState:
        """Save a checkpoint of this state, and return the state unchanged. Every rank must call it.

        An earlier save is finished first, and its error is raised. With `save.background`, only the copy of the tensors
        is waited for; `finish` later reports the save.
        """
        self.finish(wait=True)
        self._collectives.broadcast_from_main(lambda: self._begin(state))
        if self._collectives.rank != 0:
            self._directory.in_flight = Future()  # never completes, because only the save of rank 0 counts
        if not self._config.save.background:
            self.finish(wait=True)
        return state

    @property
    def is_done(self) -> bool:
        """True on rank 0 once a save in flight is complete, successful or not; False without one and on other ranks."""
        flight = self._directory.in_flight
        return flight is not None and flight.done()

    def finish(self, *, done: bool = False, wait: bool = False) -> None:
        """Report a save that is complete; if it failed, raise its error on every rank.

        If `done` or `wait` is set, every rank must call it. Without both, or without a save in flight, it does nothing.

        Parameters
            done: `is_done` of any rank, agreed on by all.
            wait: wait for a save in flight, as before the next save and at the end of a run.
        """
        flight, tracker = self._directory.in_flight, self._tracker
        if flight is None or not (done or wait):
            return
        try:
            saved: FinishedSave = self._collectives.broadcast_from_main(flight.result)
        finally:
            self._directory.in_flight = None
        step = int(saved.path.name.removeprefix("step-"))
        self._parent = saved.path.name
        self._collectives.broadcast_from_main(lambda: self._directory.status("running", step))
        tracker.say(f"saved {saved.path} ({saved.bytes / 1e6:.1f} MB in {saved.seconds:.1f} s)")
        tracker.record({"event": "saved", "step": step, "seconds": round(saved.seconds, 3), "bytes": saved.bytes})
        for line in saved.warnings:
            tracker.say(line)

    def _begin(self, state: TrainState) -> None:
        """Collect the contents of the checkpoint, and start to write them in a thread."""
        learner, settings, folder = self._learner, self._config.save, self._directory
        contents = learner.contents(self._record(state), copied=settings.background)
        files = learner.model_files() if state.improved else {}
        branch, parent = self._lineage.branch, self._parent
        kept = {*self._lineage.resumed_steps, *steps_to_average(state, self._config, self._data.steps)}
        kept |= {branch.step} if branch else set()

        def write_all() -> FinishedSave:
            begin = time.monotonic()
            folder.require_own()
            path = write(folder.checkpoints, parent, contents)
            seconds = time.monotonic() - begin
            # After the commit, because only committed checkpoints count for the best model and for retention.
            if state.improved and state.best:
                publish_best(folder, state.best, path, files, learner.adapter)
            folder.require_own()
            warnings = retain(folder.checkpoints, settings.keep, kept, settings.keep_every)
            return FinishedSave(path, contents.size, seconds, warnings)

        # A thread is enough, because writing and hashing release the interpreter's lock. Python waits for it at exit.
        pool = ThreadPoolExecutor(1, thread_name_prefix="save")
        folder.in_flight = pool.submit(write_all)
        pool.shutdown(wait=False)

    def _record(self, state: TrainState) -> CheckpointRecord:
        config = self._config
        return CheckpointRecord(
            state=state,
            config=to_plain(config),
            data=self._data.fingerprint,
            lr=learning_rate(state.step, self._data.steps, config.optim, config.schedule),
            world=self._collectives.world,
            eval_protocol=self._lineage.eval_protocol,
            set_protocols=self._lineage.set_protocols,
            branch=self._lineage.branch,
            scaler=self._learner.scaler_state,
            base=None if self._learner.adapter is None else self._learner.adapter.base.to_json(),
            versions={module.__name__: module.__version__ for module in (torch, transformers, accelerate)},
        )
