"""Where a run goes on and what it leaves to go on with: the checkpoint it begins at, and those that it saves."""

import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import accelerate
import torch
import transformers

from whisper_ft import checkpoint, durable, preflight
from whisper_ft.averaging import steps_to_average
from whisper_ft.commandline import refuse_changes
from whisper_ft.failure import ResumeError, UsageError
from whisper_ft.fields import to_plain
from whisper_ft.heldout import comparable
from whisper_ft.optim import keeps_state, load_state_tensors, state_tensors
from whisper_ft.published import frame_of, mend_best, publish_best
from whisper_ft.run import Run
from whisper_ft.sources import changed
from whisper_ft.state import TrainState


def restore(run: Run) -> TrainState:
    """Where the run goes on: at the checkpoint that rank 0 chose and verified, or at step 0. On every rank the same."""
    config, folder, agreement = run.config, run.folder, run.agreement

    def choose() -> Path | None:
        if config.resume == "never":
            if checkpoint.list_checkpoints(folder.checkpoints):
                raise UsageError(
                    f"--resume never: {folder.path} holds a run already; choose another --run_dir, or move that run "
                    "aside with --overwrite true"
                )
            return None
        best_step = folder.published.step if folder.published else None
        return checkpoint.choose(folder.checkpoints, config.resume, best_step, partial(run.tracker.say, always=True))

    chosen = agreement.from_main(choose)
    if folder.moved_to:
        run.tracker.say(f"the run that was in {folder.path} is now {folder.moved_to}")
    if chosen is None:
        run.tracker.say(f"starting at step 0 of {run.steps} in {folder.path}")
        heldout = run.heldout.source if run.heldout else None
        for line in agreement.from_main(
            lambda: list(preflight.lines(run.source, heldout, run.lanes, run.rewriting, run.encode.language))
        ):
            run.tracker.say(line)
    else:
        _refuse_another_view(run, chosen)
        run.state = resume_from(run, chosen)
    # Only now: a start that was refused must not change what the run's own files say.
    agreement.from_main(lambda: folder.describe(to_plain(config)))
    return run.state


def _refuse_another_view(run: Run, chosen: Path) -> None:
    """ResumeError unless every rank sees the checkpoint that rank 0 verified: a shared disk may lag, or not be one."""
    manifest = chosen / checkpoint.MANIFEST
    seen = run.agreement.gather(_digest(manifest))  # a collective: nothing may be raised instead of it
    if others := [str(rank) for rank, digest in enumerate(seen) if digest != seen[0]]:
        raise ResumeError(
            f"{chosen}: rank {', '.join(others)} sees another folder there, or none; is --run_dir on a disk that all "
            "machines share? If it is, it lags: the same command may work in a minute"
        )


def _digest(path: Path) -> str:
    try:
        return durable.sha256(path)
    except OSError as error:
        return str(error)


def resume_from(run: Run, chosen: Path) -> TrainState:
    """Take back weights, moments and state of a checkpoint, if its run and this one are the same by the rules."""
    config, say = run.config, run.tracker.say
    trainer = checkpoint.read_trainer(chosen)
    allowed = refuse_changes(trainer["config"], config, chosen)
    if difference := changed(trainer["data"], run.data):
        raise UsageError(f"the data is not what {chosen} was trained on: {difference}")
    for name, then, now in allowed:
        say(f"{name}: was {then}, is {now}, as allowed")

    try:
        state = TrainState.from_json(trainer["state"])
    except (KeyError, TypeError) as error:
        raise ResumeError(f"{chosen} was written by another version of this program: {error} is not known") from error
    if state.step > run.steps:
        raise UsageError(f"{chosen} is at step {state.step} already: the run cannot be shortened to {run.steps} steps")
    state = _judged(run, state, trainer["judged_on"], chosen)
    _take_back(run, trainer, chosen)
    run.parent, run.resumed_steps, run.branch = chosen.name, {state.step}, trainer["branch"]
    began = checkpoint.branch_name(config.resume)
    if config.resume != "auto" and not (run.branch and run.branch["resume"] == began):
        run.branch = {"resume": began, "step": state.step}
    say(f"resumed from {chosen}")
    say(f"LR at step {state.step}: saved {trainer['lr']:.6g}, now {run.lr(state.step):.6g}")
    run.tracker.record({"event": "resumed", "step": state.step})
    return state


def _judged(run: Run, state: TrainState, judged_on: dict[str, Any] | None, chosen: Path) -> TrainState:
    """The state with a best that is in best/, and that the coming evaluations can be compared with."""
    state, told = run.agreement.from_main(lambda: mend_best(run.folder, state, chosen, run.model, run.processor))
    if told:
        run.tracker.say(told, always=True)
    if run.judged_on is None:
        run.judged_on = judged_on
    elif not comparable(judged_on, run.judged_on):
        if state.best:
            run.tracker.say(
                "the evaluation changed, so figures cannot be compared: best is judged anew; best/ stays until then",
                always=True,
            )
        state = state.judged_anew()
    return state


def _take_back(run: Run, trainer: dict[str, Any], chosen: Path) -> None:
    """Weights, moments and loss scale of a checkpoint."""
    checkpoint.load_weights(chosen, run.model)
    was, now = trainer["config"]["optim"], run.config.optim
    if keeps_state(was, now):
        load_state_tensors(run.optimizer, run.parameters, checkpoint.load_optimizer(chosen))
    else:
        told = f"the moments of {was['name']} are of no use to {now.name}: it starts without"
        run.tracker.say(told, always=True)
    if run.scaler.is_enabled():
        if saved := trainer.get("scaler"):
            # What the scale was; by how much and when it changes is this configuration's.
            run.scaler.load_state_dict({**run.scaler.state_dict(), **saved})
        else:
            run.tracker.say(f"the loss scale starts at {run.config.scaler.initial:g}: the checkpoint has none")


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
    look_after_save(run, wait=True)
    settings, folder = run.config.save, run.folder

    def begin() -> None:
        tensors = state_tensors(run.optimizer, run.parameters)
        contents = checkpoint.contents_of(
            state.step, run.model, tensors, _trainer(run, state), copied=settings.background
        )
        frame = frame_of(run.model, run.processor) if state.improved else {}
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

    run.agreement.from_main(begin)
    if run.agreement.rank != 0:
        folder.in_flight = Future()  # which this rank never sees done
    if not settings.background:
        look_after_save(run, wait=True)
    return state


def look_after_save(run: Run, *, wait: bool = False) -> None:
    """Take note of a save in flight once it is done; what it met is raised on every rank. Between steps, on all ranks.

    `wait` for it: before the next one, before the run ends, and before checkpoints are read.
    """
    folder, tracker = run.folder, run.tracker
    flight = folder.in_flight
    if flight is None or not (wait or run.agreement.totals(flight.done())[0]):
        return
    try:
        saved: Saved = run.agreement.from_main(flight.result)
    finally:
        folder.in_flight = None
    step = int(saved.path.name.removeprefix("step-"))
    run.parent = saved.path.name
    run.agreement.from_main(lambda: folder.status("running", step))
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
        "judged_on": run.judged_on,
        "branch": run.branch,
        "lr": run.lr(state.step),
        "scaler": {name: run.scaler.state_dict()[name] for name in ("scale", "_growth_tracker") if scaled},
        "world": run.agreement.world,
        "versions": {module.__name__: module.__version__ for module in (torch, transformers, accelerate)},
    }
