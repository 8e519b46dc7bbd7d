"""Checkpoint saves during training, in the foreground or in a thread."""

import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import accelerate
import torch
import transformers

from whisper_ft import checkpoint
from whisper_ft.checkpoint.state import TrainState
from whisper_ft.config.tree import to_plain
from whisper_ft.models.export.hf import config_files
from whisper_ft.optim.optimizer import state_tensors
from whisper_ft.training.artifacts import publish_best
from whisper_ft.training.averaging import steps_to_average
from whisper_ft.training.run import Run


@dataclass(frozen=True)
class Saved:
    """A save that is done."""

    path: Path
    bytes: int
    seconds: float
    told: list[str]


def save(run: Run, state: TrainState) -> TrainState:
    """Commit a checkpoint, publish the best model, remove what is old; rank 0 writes and all learn how it went.

    With `save.background` training goes on once all of it is copied: `look_after_save` then takes note of the end.
    """
    finish_save(run, wait=True)
    settings, folder = run.config.save, run.folder

    def begin() -> None:
        tensors = state_tensors(run.optimizer, run.parameters)
        contents = checkpoint.contents_of(
            state.step, run.model, tensors, _trainer(run, state), copied=settings.background
        )
        frame = config_files(run.model, run.processor) if state.improved else {}
        began_at = {run.branch["step"]} if run.branch else set()
        kept = {*began_at, *steps_to_average(state, run.config, run.steps), *run.resumed_steps}
        parent = run.parent

        def write() -> Saved:
            began = time.monotonic()
            path = checkpoint.write(folder.checkpoints, parent, contents)
            seconds = time.monotonic() - began
            # Only now: what is left, and what is best, is judged by what is committed.
            if state.improved and state.best:
                publish_best(folder, state.best, path, frame)
            told = checkpoint.retain(folder.checkpoints, settings.keep, kept, settings.keep_every)
            return Saved(path, contents.size, seconds, told)

        # A thread of its own, which a process that ends waits for. Files and hashes hold no lock of the interpreter.
        with_one = ThreadPoolExecutor(1, thread_name_prefix="save")
        folder.in_flight = with_one.submit(write)
        with_one.shutdown(wait=False)

    run.agreement.broadcast_from_main(begin)
    if run.agreement.rank != 0:
        folder.in_flight = Future()  # which this rank never sees done
    if not settings.background:
        finish_save(run, wait=True)
    return state


def finish_save(run: Run, *, wait: bool = False) -> None:
    """Take note of a save in flight once it is done; what it met is raised on every rank. Between steps, on all ranks.

    `wait` for it: before the next one, before the run ends, and before checkpoints are read.
    """
    folder, tracker = run.folder, run.tracker
    flight = folder.in_flight
    if flight is None or not (wait or run.agreement.all_reduce_sum(flight.done())[0]):
        return
    try:
        saved: Saved = run.agreement.broadcast_from_main(flight.result)
    finally:
        folder.in_flight = None
    step = int(saved.path.name.removeprefix("step-"))
    run.parent = saved.path.name
    run.agreement.broadcast_from_main(lambda: folder.status("running", step))
    tracker.say(f"saved {saved.path} ({saved.bytes / 1e6:.1f} MB in {saved.seconds:.1f} s)")
    tracker.record({"event": "saved", "step": step, "seconds": round(saved.seconds, 3), "bytes": saved.bytes})
    for line in saved.told:
        tracker.say(line)


def _trainer(run: Run, state: TrainState) -> dict[str, Any]:
    """What a checkpoint records beside its tensors."""
    scaled = run.scaler.is_enabled()
    return {
        "state": state.to_json(),
        "config": to_plain(run.config),
        "data": run.data,
        "judged_on": run.eval_protocol,
        "branch": run.branch,
        "lr": run.lr(state.step),
        "scaler": {name: run.scaler.state_dict()[name] for name in ("scale", "_growth_tracker") if scaled},
        "world": run.agreement.world,
        "versions": {module.__name__: module.__version__ for module in (torch, transformers, accelerate)},
    }
