"""Record of a checkpoint: everything it says beside its tensors, as `trainer.json`."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from whisper_ft.checkpoint.state import TrainState

TRAINER = "trainer.json"


@dataclass(frozen=True)
class Branch:
    """A run that did not continue from its newest checkpoint."""

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
    """Version of the order, number of lanes, and fingerprint of the training data."""
    lr: float
    """Learning rate of the next update."""
    world: int
    """Number of processes."""
    eval_protocol: dict[str, Any] | None = None
    """Protocol that the evaluations of the run depend on, in JSON values; None if nothing was evaluated."""
    branch: Branch | None = None
    scaler: dict[str, float] = field(default_factory=dict)
    """Loss scale and its growth counter; empty without fp16."""
    versions: dict[str, str] = field(default_factory=dict)
    """Versions of the libraries."""

    def to_json(self) -> dict[str, Any]:
        """JSON values, under the keys of every version so far."""
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
        """Record from `to_json`, of this or an earlier version. KeyError, TypeError, ValueError for another format."""
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

    Raises OSError if the file cannot be read, and KeyError, TypeError or ValueError if its content is not a record.
    """
    return CheckpointRecord.from_json(json.loads((checkpoint / TRAINER).read_text(encoding="utf-8")))
