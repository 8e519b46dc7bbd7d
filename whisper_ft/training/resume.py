"""Resume: the checkpoint and the state with which a run continues, and the checks that it may."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from whisper_ft.checkpoint.checkpoint_manifest import MANIFEST
from whisper_ft.checkpoint.format import list_checkpoints, newest_record
from whisper_ft.checkpoint.record import Branch, CheckpointRecord, read_record
from whisper_ft.checkpoint.resume_choice import branch_name, choose
from whisper_ft.checkpoint.state import TrainState
from whisper_ft.config.augment import WAVEFORM
from whisper_ft.config.resume_policy import SettingChange, refuse_changes
from whisper_ft.config.training import TrainingConfig
from whisper_ft.config.tree import to_plain
from whisper_ft.data.formats.fingerprint import changed
from whisper_ft.data.sampling.block_partition import BlockPartition
from whisper_ft.decoding.eval_protocol import EvalProtocol
from whisper_ft.optim.schedule import learning_rate
from whisper_ft.runtime import atomic
from whisper_ft.runtime.collectives import Collectives
from whisper_ft.runtime.errors import ResumeError, UsageError
from whisper_ft.runtime.printable import counted
from whisper_ft.tracking.tracker import Tracker
from whisper_ft.training.anchor_data import FINGERPRINT, START_WEIGHTS, refuse_another_anchor
from whisper_ft.training.best_within_guards import with_best_within_guards
from whisper_ft.training.data import AUGMENTATION, BYTES, TrainingData
from whisper_ft.training.data_summary import packing_lines, settings_lines, summary_lines
from whisper_ft.training.directory import RunDir
from whisper_ft.training.evaluation import Evaluation
from whisper_ft.training.learner import Learner
from whisper_ft.training.published_models import repair_best
from whisper_ft.training.saver import Lineage


def begin_or_resume(
    config: TrainingConfig,
    collectives: Collectives,
    directory: RunDir,
    tracker: Tracker,
    data: TrainingData,
    learner: Learner,
    evaluation: Evaluation,
) -> tuple[TrainState, Lineage]:
    """Start at step 0 or resume from a checkpoint, report the data, and write config.yaml. Every rank must call it.

    Raises UsageError or ResumeError, and leaves the earlier config.yaml, if the run cannot continue.

    Returns the state of the run, and the lineage that its next checkpoint records.
    """
    protocol = evaluation.protocol
    sets = collectives.broadcast_from_main(lambda: {one.name: one.protocol() for one in evaluation.sets})
    chosen = choose_checkpoint(config, directory, collectives, tracker)
    if directory.moved_to:
        tracker.say(f"the run that was in {directory.path} is now {directory.moved_to}")
    state = TrainState()
    lineage = Lineage(
        eval_protocol=None if protocol is None else protocol.to_json(),
        set_protocols={name: of_set.to_json() for name, of_set in sets.items()},
    )
    first_line = f"starting at step 0 of {data.steps} in {directory.path}"
    report_data(config, data, learner, evaluation, collectives, tracker, None if chosen else first_line)
    if chosen is not None:
        state, lineage = resume_from(chosen, config, data, learner, evaluation, sets, directory, collectives, tracker)
    directory.step = state.step
    # Written only now, so that a refused start leaves the files of the run as they are.
    collectives.broadcast_from_main(lambda: directory.describe(to_plain(config)))
    return state, lineage


def report_data(
    config: TrainingConfig,
    data: TrainingData,
    learner: Learner,
    evaluation: Evaluation,
    collectives: Collectives,
    tracker: Tracker,
    first_line: str | None,
) -> None:
    """Report what is read of each set. Every rank must call it.

    A new run has a `first_line`, and facts follow it for which some rows are read.
    """
    held_out = evaluation.held_out.source if evaluation.held_out else None
    sets = {one.name: one.source for one in evaluation.sets}
    encode, lanes = learner.encode, data.partition.lanes
    tracker.say_all(
        collectives.broadcast_from_main(lambda: list(settings_lines(config, data.source, held_out, sets, encode)))
    )
    if isinstance(data.partition, BlockPartition):
        tracker.say_all(packing_lines(data.partition, config.data.workers))
    tracker.say_all(f"set {one.name}: {note}" for one in evaluation.sets for note in one.evaluator.notes)
    if first_line is None:
        tracker.say_all(data.source.notes)
        return
    tracker.say(first_line if config.precision == "fp32" else f"{first_line}, in {config.precision}")
    tracker.say_all(
        collectives.broadcast_from_main(
            lambda: list(summary_lines(data.source, held_out, sets, lanes, encode, data.recordings))
        )
    )


def choose_checkpoint(
    config: TrainingConfig, directory: RunDir, collectives: Collectives, tracker: Tracker
) -> Path | None:
    """Return the checkpoint to continue from; None for a fresh start.

    Every rank must call it. Rank 0 chooses and verifies the checkpoint, and every rank gets the same answer.

    Raises UsageError if `resume` is `never` and the folder has checkpoints. Raises ResumeError if the wanted checkpoint
    cannot be used, or if the ranks do not see the same folder.
    """

    def on_main() -> Path | None:
        if config.resume == "never":
            if list_checkpoints(directory.checkpoints):
                raise UsageError(
                    f"--resume never: {directory.path} holds a run already; choose another --run_dir, or move that "
                    "run aside with --overwrite true"
                )
            return None
        record = newest_record(directory.checkpoints)
        best = (record and record.state.best) or directory.published  # a damaged best.json is not believed
        best_step = best.step if best else None
        return choose(directory.checkpoints, config.resume, best_step, partial(tracker.say, always=True))

    chosen = collectives.broadcast_from_main(on_main)
    if chosen is not None:
        _refuse_another_view(chosen, collectives)
    return chosen


def _refuse_another_view(chosen: Path, collectives: Collectives) -> None:
    """Raise ResumeError if a rank does not see the checkpoint that rank 0 verified.

    The disk of that rank may be another one, or may show changes late.
    """
    digests = collectives.gather(_digest(chosen / MANIFEST))  # a collective, so no rank may raise before it
    if others := [str(rank) for rank, digest in enumerate(digests) if digest != digests[0]]:
        raise ResumeError(
            f"{chosen}: rank {', '.join(others)} sees another folder there, or none. Put --run_dir on a disk that all "
            "machines share; if it is on one, its view lags: run the same command again in a minute"
        )


def _digest(path: Path) -> str:
    try:
        return atomic.sha256(path)
    except OSError as error:
        return str(error)


def resume_from(
    chosen: Path,
    config: TrainingConfig,
    data: TrainingData,
    learner: Learner,
    evaluation: Evaluation,
    sets: Mapping[str, EvalProtocol],
    directory: RunDir,
    collectives: Collectives,
    tracker: Tracker,
) -> tuple[TrainState, Lineage]:
    """Load a checkpoint, if the rules allow this run to continue from it. Every rank must call it.

    Also makes best/ agree with the state, and forgets the best model if the evaluation changed. The start model is
    scored on guarded sets that are new or changed. `sets` are the protocols of eval.sets. Raises UsageError if settings
    or data changed, or if the checkpoint is beyond the end of the run. Raises ResumeError if it does not fit.

    Returns the state of the run, and the lineage that its next checkpoint records.
    """
    record = read_record(chosen)
    allowed = refuse_changes(record.config, config, chosen)
    if learner.adapter is not None:
        learner.adapter.refuse_another_base(record, chosen)
    _refuse_other_data(record, data, allowed, chosen)
    tracker.say_all(f"{name}: was {then}, is {now}, as allowed" for name, then, now in allowed)
    state = record.state
    if state.step > data.steps:
        shorter = counted(data.steps, "step")
        raise UsageError(f"{chosen} is at step {state.step} already: the run cannot be shortened to {shorter}")
    state, message = collectives.broadcast_from_main(
        lambda: repair_best(directory, state, chosen, learner.model_files, learner.adapter)
    )
    if message:
        tracker.say(message, always=True)
    state, recorded = _with_comparable_best(state, record, evaluation.protocol, tracker)
    state, of_sets = _with_comparable_sets(state, record, sets, tracker)
    state = _with_guards(state, config, evaluation, directory, tracker, chosen)
    learner.restore(chosen, record, config, tracker.say)
    tracker.say(f"resumed from {chosen}")
    lr = learning_rate(state.step, data.steps, config.optim, config.schedule)
    tracker.say(f"LR at step {state.step}: saved {record.lr:.6g}, now {lr:.6g}")
    if not evaluation.is_over(state, data.steps):  # a finished run stays as it is
        tracker.record({"event": "resumed", "step": state.step})
    return state, Lineage(chosen.name, _branch(config, record, state.step), frozenset({state.step}), recorded, of_sets)


def _with_guards(
    state: TrainState,
    config: TrainingConfig,
    evaluation: Evaluation,
    directory: RunDir,
    tracker: Tracker,
    chosen: Path,
) -> TrainState:
    """Return the state with the start model measured for every guard, and the best evaluation within the guards.

    The start model must be in the learner still. Every rank must call it.
    """
    if config.adapter.init and evaluation.watch.unmeasured(state):
        tracker.say("the guards compare with the base alone, without the adapter in adapter.init", always=True)
    state = evaluation.measure_start(state)
    return with_best_within_guards(state, evaluation, directory, tracker, [chosen.parent])


def _refuse_other_data(
    record: CheckpointRecord, data: TrainingData, allowed: Sequence[SettingChange], chosen: Path
) -> None:
    """Raise UsageError if the data is another than that of the checkpoint."""
    refuse_another_anchor(record.data, data.fingerprint, chosen)
    if difference := changed(record.data, _compared(data.fingerprint, allowed)):
        places = data.recordings_that_differ(record.data)
        at = f"; the recordings are those of {', '.join(places)}" if places else ""
        raise UsageError(f"the data differs from the data of {chosen}: {difference}{at}")


def _compared(fingerprint: dict[str, Any], allowed: Sequence[SettingChange]) -> dict[str, Any]:
    """Return the facts about the data to compare: recordings may differ if the transforms that use them may.

    The anchor is left out, because `refuse_another_anchor` compares it.
    """
    is_other = any(change.name == WAVEFORM for change in allowed)
    left_out = {FINGERPRINT, START_WEIGHTS, *([AUGMENTATION, AUGMENTATION + BYTES] if is_other else [])}
    return {key: value for key, value in fingerprint.items() if key not in left_out}


def _with_comparable_best(
    state: TrainState, record: CheckpointRecord, protocol: EvalProtocol | None, tracker: Tracker
) -> tuple[TrainState, dict[str, object] | None]:
    """Forget the best model if the evaluation changed, because the coming scores could not be compared with its score.

    Returns the state, and the protocol to record from here on.
    """
    if protocol is None:
        return state, record.eval_protocol
    if record.eval_protocol is not None and not protocol.matches(EvalProtocol.from_json(record.eval_protocol)):
        if state.best:
            tracker.say(
                "the evaluation changed, so figures cannot be compared: the best model is chosen anew, and best/ stays "
                "until then",
                always=True,
            )
        state = state.reset_best()
    return state, protocol.to_json()


def _with_comparable_sets(
    state: TrainState, record: CheckpointRecord, sets: Mapping[str, EvalProtocol], tracker: Tracker
) -> tuple[TrainState, dict[str, dict[str, object]]]:
    """Forget the evaluations of each set of eval.sets whose coming scores cannot be compared with its earlier ones.

    Returns the state, and the protocols to record from here on, by name.
    """
    for name, protocol in sets.items():
        recorded = record.set_protocols.get(name)
        if recorded is not None and not protocol.matches(EvalProtocol.from_json(recorded)):
            tracker.say(f"the set {name} of eval.sets changed, so its figures cannot be compared with the earlier ones")
            state = state.reset_set(name)
    return state, {**record.set_protocols, **{name: protocol.to_json() for name, protocol in sets.items()}}


def _branch(config: TrainingConfig, record: CheckpointRecord, step: int) -> Branch | None:
    """Return the branch of the resumed run: a new one if `--resume` names another start than the recorded one."""
    name = branch_name(config.resume)
    if config.resume == "auto" or (record.branch and record.branch.resume == name):
        return record.branch
    return Branch(name, step)
