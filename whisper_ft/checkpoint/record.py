"""Record of a checkpoint: everything except the tensors, stored as `trainer.json`."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from whisper_ft.checkpoint.state import TrainState
from whisper_ft.runtime.errors import ResumeError, one_line

TRAINER = "trainer.json"


@dataclass(frozen=True)
class Branch:
    """Note that a run was resumed from a named or the best checkpoint, and not simply from the newest."""

    resume: str
    """Value of `--resume`: best, or the full path of a checkpoint."""
    step: int
    """Step at which the branch begins."""


@dataclass(frozen=True)
class CheckpointRecord:
    """State of a run and everything that a resumed run is compared with."""

    state: TrainState
    config: dict[str, Any]
    """Configuration of the run, as from `to_plain`, with every `auto` resolved."""
    data: dict[str, Any]
    """Version of the data order, number of lanes (interleaved streams of rows), and fingerprint of the data."""
    lr: float
    """Learning rate of the next update."""
    world: int
    """Number of processes."""
    eval_protocol: dict[str, Any] | None = None
    """Settings and data that the evaluation figures depend on, as JSON values; None if nothing was evaluated."""
    branch: Branch | None = None
    """The last resume from a named or the best checkpoint; None if there was none."""
    scaler: dict[str, float] = field(default_factory=dict)
    """Loss scale and its growth counter; empty if the precision is not fp16."""
    versions: dict[str, str] = field(default_factory=dict)
    """Versions of the libraries."""

    def to_json(self) -> dict[str, Any]:
        """Return the record as JSON values, under the same keys as in every earlier version."""
        return {
            "state": self.state.to_json(),
            "config": self.config,
            "data": self.data,
            "judged_on": self.eval_protocol,
            "branch": None if self.branch is None else {"resume": self.branch.resume, "step": self.branch.step},
            "lr": self.lr,
            "scaler": self.scaler,
            "world": self.world,
            "versions": self.versions,
        }

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Self:
        """Build a record from the JSON values that `to_json` of this or an earlier version returned.

        Raises KeyError, TypeError or ValueError if the values are not a record.
        """
        config, data, branch = fields["config"], fields["data"], fields.get("branch")
        if config["data"].get("lanes") is None:  # early versions recorded the number chosen beside the configuration
            config = {**config, "data": {**config["data"], "lanes": data["lanes"]}}
        return cls(
            state=TrainState.from_json(fields["state"]),
            config=config,
            data=data,
            lr=float(fields["lr"]),
            world=int(fields.get("world", 1)),
            eval_protocol=fields.get("judged_on"),
            branch=branch and Branch(branch["resume"], branch["step"]),
            scaler=dict(fields.get("scaler") or {}),
            versions=dict(fields.get("versions") or {}),
        )


def read_record(checkpoint: Path) -> CheckpointRecord:
    """Read the record of a checkpoint.

    Raises OSError if the file cannot be read, and ResumeError if its content is not a record of this or an earlier
    version of the program.
    """
    try:
        return CheckpointRecord.from_json(json.loads((checkpoint / TRAINER).read_text(encoding="utf-8")))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ResumeError(
            f"{checkpoint} was written by another version of this program: {one_line(error)} is not known; continue "
            "with that version, or choose another --run_dir"
        ) from error
