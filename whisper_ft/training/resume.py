"""Resume: the configuration, data and state with which a run continues from a checkpoint."""

from collections.abc import Collection
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

from whisper_ft.checkpoint.checkpoint_manifest import MANIFEST
from whisper_ft.checkpoint.format import list_checkpoints, newest_record
from whisper_ft.checkpoint.record import TRAINER, Branch, CheckpointRecord, read_record
from whisper_ft.checkpoint.resume_choice import branch_name, choose
from whisper_ft.checkpoint.state import TrainState
from whisper_ft.config.data import DataConfig, SourceConfig
from whisper_ft.config.resume_policy import as_resumed, refuse_changes
from whisper_ft.config.training import TrainingConfig
from whisper_ft.config.tree import to_plain, with_values
from whisper_ft.data.formats.fingerprint import changed
from whisper_ft.data.sampling.order import default_lanes
from whisper_ft.data.sources import pin, pin_mixture, refuse_beside_sources
from whisper_ft.decoding.eval_protocol import EvalProtocol
from whisper_ft.optim.schedule import learning_rate
from whisper_ft.runtime import atomic
from whisper_ft.runtime.collectives import Collectives
from whisper_ft.runtime.errors import ResumeError, UsageError
from whisper_ft.runtime.printable import counted
from whisper_ft.tracking.tracker import Tracker
from whisper_ft.training.data import TrainingData
from whisper_ft.training.data_summary import settings_lines, summary_lines
from whisper_ft.training.directory import RunDir
from whisper_ft.training.evaluation import Evaluation
from whisper_ft.training.learner import Learner
from whisper_ft.training.published_models import repair_best
from whisper_ft.training.saver import Lineage


class Start(NamedTuple):
    """Settings with which a run starts or continues; every rank has the same."""

    config: TrainingConfig
    """Settings without `auto`. Settings newer than the checkpoint keep its behaviour (`resume_policy.as_resumed`)."""
    data: DataConfig
    """Training data, pinned to a commit if it is on the Hub."""
    held_out: SourceConfig | None
    is_new: bool
    """True if there is no checkpoint to continue from."""


def start_of(config: TrainingConfig, given: Collection[str], directory: RunDir) -> Start:
    """Determine the settings and data with which this start of the program trains. Main process only.

    If there is a newest checkpoint, or one that `--resume` names, its recorded settings are combined with the given
    ones. A data set on the Hub is pinned to the commit in the checkpoint; without one, to its newest commit. Only one
    process asks the Hub. If every process asked, the data set could change in between.
    """
    record = recorded_start(config, directory.checkpoints)
    if record is None:
        config = resolved(config)
        refuse_beside_sources(config)
        return Start(config, pin_mixture(config.data), config.held_out and pin(config.held_out), is_new=True)
    config = resolved(as_resumed(config, given, record.config))
    refuse_beside_sources(config)
    saved, protocol = record.config, record.eval_protocol
    data = pin_mixture(config.data, saved["data"], record.data)
    if config.held_out is None:
        return Start(config, data, None, is_new=False)
    of_eval = {**saved["data"], "path": saved["eval"]["path"] or saved["data"]["path"]}
    held_out = pin(config.held_out, of_eval, protocol and protocol["data"])
    return Start(config, data, held_out, is_new=False)


def recorded_start(config: TrainingConfig, checkpoints: Path) -> CheckpointRecord | None:
    """Read the record of the newest checkpoint, or else of the checkpoint that `--resume` names.

    None if neither exists or can be read.
    """
    if record := newest_record(checkpoints):
        return record
    if Path(config.resume, TRAINER).is_file():
        with suppress(OSError, ResumeError):  # `choose_checkpoint` reports damage later
            return read_record(Path(config.resume))
    return None


def resolved(config: TrainingConfig) -> TrainingConfig:
    """Return the configuration with every `auto` that the program decides itself replaced by the decision."""
    return with_values(config, {"data.lanes": config.data.lanes or default_lanes(config.batch.size)})


def begin_or_resume(
    config: TrainingConfig,
    collectives: Collectives,
    directory: RunDir,
    tracker: Tracker,
    data: TrainingData,
    learner: Learner,
    evaluation: Evaluation,
) -> tuple[TrainState, Lineage]:
    """Start at step 0 or resume from a checkpoint, then write config.yaml. Every rank must call it.

    Raises UsageError or ResumeError, and leaves the earlier config.yaml, if the run cannot continue.

    Returns the state of the run, and the lineage that its next checkpoint records.
    """
    protocol = evaluation.protocol
    chosen = choose_checkpoint(config, directory, collectives, tracker)
    if directory.moved_to:
        tracker.say(f"the run that was in {directory.path} is now {directory.moved_to}")
    held_out = evaluation.evaluators[0].source if evaluation.evaluators else None
    for line in collectives.broadcast_from_main(
        lambda: list(settings_lines(config, data.source, held_out, learner.encode))
    ):
        tracker.say(line)
    state, lineage = TrainState(), Lineage(eval_protocol=None if protocol is None else protocol.to_json())
    if chosen is None:
        tracker.say(f"starting at step 0 of {data.steps} in {directory.path}")
        for line in collectives.broadcast_from_main(
            lambda: list(summary_lines(data.source, held_out, data.partition.lanes, learner.encode))
        ):
            tracker.say(line)
    else:
        for line in data.source.notes:
            tracker.say(line)
        state, lineage = resume_from(chosen, config, data, learner, protocol, directory, collectives, tracker)
    directory.step = state.step
    # Written only now, so that a refused start leaves the files of the run as they are.
    collectives.broadcast_from_main(lambda: directory.describe(to_plain(config)))
    return state, lineage


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
    protocol: EvalProtocol | None,
    directory: RunDir,
    collectives: Collectives,
    tracker: Tracker,
) -> tuple[TrainState, Lineage]:
    """Load a checkpoint, if the rules allow this run to continue from it. Every rank must call it.

    Also makes best/ agree with the state, and forgets the best model if the evaluation changed. Raises UsageError if
    settings or data changed, or if the checkpoint is beyond the end of the run. Raises ResumeError if it does not fit.

    Returns the state of the run, and the lineage that its next checkpoint records.
    """
    record = read_record(chosen)
    allowed = refuse_changes(record.config, config, chosen)
    if difference := changed(record.data, data.fingerprint):
        raise UsageError(f"the data differs from the data of {chosen}: {difference}")
    for name, then, now in allowed:
        tracker.say(f"{name}: was {then}, is {now}, as allowed")
    state = record.state
    if state.step > data.steps:
        shorter = counted(data.steps, "step")
        raise UsageError(f"{chosen} is at step {state.step} already: the run cannot be shortened to {shorter}")
    state, message = collectives.broadcast_from_main(
        lambda: repair_best(directory, state, chosen, learner.model, learner.processor)
    )
    if message:
        tracker.say(message, always=True)
    state, recorded = _with_comparable_best(state, record, protocol, tracker)
    learner.restore(chosen, record, config, tracker.say)
    tracker.say(f"resumed from {chosen}")
    lr = learning_rate(state.step, data.steps, config.optim, config.schedule)
    tracker.say(f"LR at step {state.step}: saved {record.lr:.6g}, now {lr:.6g}")
    if state.step < data.steps and not state.out_of_patience(config.eval.patience):  # a finished run stays as it is
        tracker.record({"event": "resumed", "step": state.step})
    return state, Lineage(chosen.name, _branch(config, record, state.step), frozenset({state.step}), recorded)


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


def _branch(config: TrainingConfig, record: CheckpointRecord, step: int) -> Branch | None:
    """Return the branch of the resumed run: a new one if `--resume` names another start than the recorded one."""
    name = branch_name(config.resume)
    if config.resume == "auto" or (record.branch and record.branch.resume == name):
        return record.branch
    return Branch(name, step)
