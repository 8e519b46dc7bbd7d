"""Where a run goes on and what it leaves to go on with: the checkpoint it begins at, and those that it saves."""

from functools import partial
from pathlib import Path
from typing import Any

from whisper_ft import checkpoint
from whisper_ft.checkpoint.state import TrainState
from whisper_ft.config.resume_policy import refuse_changes
from whisper_ft.config.tree import to_plain
from whisper_ft.data.formats.fingerprint import changed
from whisper_ft.decoding.evaluator import comparable
from whisper_ft.optim.optimizer import keeps_state, load_state_tensors
from whisper_ft.runtime import atomic
from whisper_ft.runtime.errors import ResumeError, UsageError
from whisper_ft.training import data_summary
from whisper_ft.training.artifacts import repair_best
from whisper_ft.training.run import Run


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

    chosen = agreement.broadcast_from_main(choose)
    if folder.moved_to:
        run.tracker.say(f"the run that was in {folder.path} is now {folder.moved_to}")
    if chosen is None:
        run.tracker.say(f"starting at step 0 of {run.steps} in {folder.path}")
        heldout = run.heldout.source if run.heldout else None
        for line in agreement.broadcast_from_main(
            lambda: list(data_summary.summary_lines(run.source, heldout, run.lanes, run.rewriting, run.encode.language))
        ):
            run.tracker.say(line)
    else:
        _refuse_another_view(run, chosen)
        run.state = resume_from(run, chosen)
    # Only now: a start that was refused must not change what the run's own files say.
    agreement.broadcast_from_main(lambda: folder.describe(to_plain(config)))
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
        return atomic.sha256(path)
    except OSError as error:
        return str(error)


def resume_from(run: Run, chosen: Path) -> TrainState:
    """Take back weights, moments and state of a checkpoint, if its run and this one are the same by the rules."""
    config, say = run.config, run.tracker.say
    trainer = checkpoint.read_record(chosen)
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
    state, told = run.agreement.broadcast_from_main(
        lambda: repair_best(run.folder, state, chosen, run.model, run.processor)
    )
    if told:
        run.tracker.say(told, always=True)
    if run.eval_protocol is None:
        run.eval_protocol = judged_on
    elif not comparable(judged_on, run.eval_protocol):
        if state.best:
            run.tracker.say(
                "the evaluation changed, so figures cannot be compared: best is judged anew; best/ stays until then",
                always=True,
            )
        state = state.reset_best()
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
