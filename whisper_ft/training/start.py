"""Start of a run: the settings and data with which it begins or continues, every one of them decided."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import torch

from whisper_ft.checkpoint.format import newest_record
from whisper_ft.checkpoint.record import TRAINER, CheckpointRecord, read_record
from whisper_ft.config.adapter import ADAPTER_LR
from whisper_ft.config.data import DataConfig, SourceConfig, set_name
from whisper_ft.config.evaluation import EvalSetConfig
from whisper_ft.config.resume_policy import as_resumed
from whisper_ft.config.training import TrainingConfig
from whisper_ft.config.tree import with_values
from whisper_ft.data.sampling.order import default_lanes
from whisper_ft.data.sources import pin, pin_mixture, refuse_beside_sources
from whisper_ft.models.precision import resolved_precision
from whisper_ft.optim.schedule import steps_of
from whisper_ft.runtime.errors import ResumeError
from whisper_ft.runtime.printable import counted
from whisper_ft.training.anchor_data import FINGERPRINT
from whisper_ft.training.directory import RunDir

LONG_WARMUP = 0.2  # share of a run; the loss of short adapter runs was seen to stay level in longer warm-ups


class Start(NamedTuple):
    """Settings with which a run starts or continues; every rank has the same."""

    config: TrainingConfig
    """Settings without `auto`. Settings newer than the checkpoint keep its behaviour (`resume_policy.as_resumed`)."""
    data: DataConfig
    """Training data, pinned to a commit if it is on the Hub."""
    held_out: SourceConfig | None
    sets: Sequence[EvalSetConfig]
    """Sets of eval.sets that are scored."""
    anchor: SourceConfig | None
    """Audio of the anchor."""
    is_new: bool
    """True if there is no checkpoint to continue from."""
    chose_lr: bool = False
    """True if the learning rate was `auto` and is now chosen."""


def start_of(config: TrainingConfig, given: Collection[str], directory: RunDir, device: torch.device) -> Start:
    """Determine the settings and data with which this start of the program trains on a device. Main process only.

    If there is a newest checkpoint, or one that `--resume` names, its recorded settings are combined with the given
    ones. A data set on the Hub is pinned to the commit in the checkpoint; without one, to its newest commit. Only one
    process asks the Hub. If every process asked, the data set could change in between.
    """
    record = recorded_start(config, directory.checkpoints)
    if record is None:
        chose_lr, config = config.optim.lr == "auto", resolved(config, device)
        refuse_beside_sources(config)
        sets = [pin(one) for one in config.eval.sets_beside(config.data)]
        held_out, anchor = config.held_out and pin(config.held_out), pinned_anchor(config)
        return Start(config, pin_mixture(config.data), held_out, sets, anchor, is_new=True, chose_lr=chose_lr)
    config = resolved(as_resumed(config, given, record.config), device)
    refuse_beside_sources(config)
    saved, protocol = record.config, record.eval_protocol
    data, held_out = pin_mixture(config.data, saved["data"], record.data), config.held_out
    if held_out is not None:
        of_eval = {**saved["data"], "path": saved["eval"]["path"] or saved["data"]["path"]}
        held_out = pin(held_out, of_eval, protocol and protocol["data"])
    anchor = pinned_anchor(config, saved.get("anchor"), record.data.get(FINGERPRINT))
    return Start(config, data, held_out, pinned_sets(config, record), anchor, is_new=False)


def pinned_sets(config: TrainingConfig, record: CheckpointRecord) -> list[EvalSetConfig]:
    """Return the sets of eval.sets as `pin` does, each at the commit that the checkpoint recorded under its name."""
    saved: list[dict[str, Any]] = record.config["eval"].get("sets") or []
    then = {set_name(one["name"], one["path"], one["split"]): one for one in saved}
    data = {name: protocol.get("data") for name, protocol in record.set_protocols.items()}
    return [pin(one, then.get(one.name), data.get(one.name)) for one in config.eval.sets_beside(config.data)]


def pinned_anchor(
    config: TrainingConfig, then: Mapping[str, Any] | None = None, recorded: Mapping[str, Any] | None = None
) -> SourceConfig | None:
    """Return the audio of the anchor as `pin` does; None if `anchor.kl` is off."""
    where = config.anchor.source_beside(config.data)
    return where and pin(where, then, recorded)


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


def resolved(config: TrainingConfig, device: torch.device) -> TrainingConfig:
    """Return the configuration with every `auto` that the program decides itself replaced by the decision."""
    lanes = config.data.lanes or default_lanes(config.batch.size)
    lr = config.adapter.default_lr if config.optim.lr == "auto" else config.optim.lr
    precision = resolved_precision(config.precision, device)
    return with_values(config, {"data.lanes": lanes, "precision": precision, "optim.lr": lr})


def rate_lines(start: Start, steps: int) -> Iterator[str]:
    """Yield lines about the learning rate of a run of so many `steps`: its origin, and a warm-up that is too long."""
    config = start.config
    lr, is_adapter, warmup = config.optim.peak_lr, config.adapter.enabled, steps_of(config.schedule.warmup, steps)
    if start.chose_lr:
        yield f"optim.lr is {lr:g}, which auto chooses for {'an adapter' if is_adapter else 'all weights'}"
    elif is_adapter and start.is_new:
        yield f"optim.lr is {lr:g}, as given; auto would choose {ADAPTER_LR:g} for an adapter"
    if is_adapter and warmup > LONG_WARMUP * steps:
        yield (
            f"warning: the warm-up is {counted(warmup, 'update')} of {steps}. An adapter needs few, and its loss "
            "hardly falls in a long one; try --schedule.warmup 0.05"
        )
    elif warmup >= steps and start.is_new:
        yield (
            f"warning: the warm-up is {counted(warmup, 'update')} of {steps}, so the run ends before its rate reaches "
            "optim.lr; try --schedule.warmup 0.1, a tenth of the run"
        )
