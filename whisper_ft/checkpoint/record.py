"""Record of a checkpoint: everything except the tensors, stored as `trainer.json`."""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from whisper_ft.checkpoint.checkpoint_manifest import WrittenFile, read_manifest
from whisper_ft.checkpoint.state import TrainState, count, real
from whisper_ft.runtime.errors import ResumeError, one_line
from whisper_ft.runtime.regular_file import read_regular, strict_json

TRAINER = "trainer.json"


class AnotherVersionError(ResumeError):
    """Raised for a record with a field that is missing or not known, as another version of the program wrote it."""


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
    set_protocols: dict[str, dict[str, Any]] = field(default_factory=dict)
    """The same for each set of eval.sets that was ever scored, by its name."""
    branch: Branch | None = None
    """The last resume from a named or the best checkpoint; None if there was none."""
    scaler: dict[str, float] = field(default_factory=dict)
    """Loss scale and its growth counter; empty if the precision is not fp16."""
    versions: dict[str, str] = field(default_factory=dict)
    """Versions of the libraries."""
    base: dict[str, Any] | None = None
    """Identity of the base of an adapter, as JSON values; None for a run that trains the model itself."""

    @property
    def keeps_moments(self) -> bool:
        """True if the optimizer state holds moments, which a plain SGD and a run without an applied update lack.

        False as well if the configuration has no settings of the optimizer.
        """
        optim = self.config.get("optim")
        is_plain = not isinstance(optim, dict) or (optim.get("name") == "sgd" and not optim.get("momentum"))
        return self.state.step > self.state.skipped and not is_plain

    def to_json(self) -> dict[str, Any]:
        """Return the record as JSON values, under the same keys as in every earlier version."""
        return {
            "state": self.state.to_json(),
            "config": self.config,
            "data": self.data,
            "judged_on": self.eval_protocol,
            "sets": self.set_protocols,
            "branch": None if self.branch is None else {"resume": self.branch.resume, "step": self.branch.step},
            "lr": self.lr,
            "scaler": self.scaler,
            "world": self.world,
            "versions": self.versions,
            "base": self.base,
        }

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Self:
        """Build a record from the JSON values that `to_json` of this or an earlier version returned.

        Raises KeyError if a field is missing or not known, and ValueError for a value that no version writes.
        """
        if not isinstance(fields, dict):
            raise ValueError("it is not an object")
        config, data, branch = (
            _object(fields["config"], "config"),
            _object(fields["data"], "data"),
            fields.get("branch"),
        )
        if _object(config["data"], "config.data").get("lanes") is None:
            # Early versions recorded the chosen number beside the configuration.
            config = {**config, "data": {**config["data"], "lanes": data["lanes"]}}
        base = fields.get("base")
        protocol, scaler = fields.get("judged_on"), _object(fields.get("scaler") or {}, "scaler")
        sets = _object(fields.get("sets") or {}, "sets")
        return cls(
            state=TrainState.from_json(fields["state"]),
            config=config,
            data=data,
            lr=real(fields["lr"], "lr"),
            world=count(fields.get("world", 1), "world"),
            eval_protocol=None if protocol is None else _object(protocol, "judged_on"),
            set_protocols={name: _object(each, f"sets.{name}") for name, each in sets.items()},
            branch=None if branch is None else _branch(_object(branch, "branch")),
            scaler={name: real(value, name) for name, value in scaler.items()},
            versions=_object(fields.get("versions") or {}, "versions"),
            base=None if base is None else _object(base, "base"),
        )


def _object(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{name} is {str(value)[:40]}")
    return value


def _branch(fields: dict[str, Any]) -> Branch:
    if not isinstance(fields["resume"], str):
        raise ValueError(f"branch.resume is {str(fields['resume'])[:40]}")
    return Branch(fields["resume"], count(fields["step"], "branch.step"))


def read_record(checkpoint: Path) -> CheckpointRecord:
    """Read the record of a checkpoint, after comparing its bytes with the manifest.

    Raises OSError if a file cannot be read, and ResumeError if the record or the manifest is damaged. If another
    version of the program wrote the record, the error is an AnotherVersionError.
    """
    try:
        manifest = read_manifest(checkpoint)
        record = CheckpointRecord.from_json(strict_json(_verified(checkpoint / TRAINER, manifest.files.get(TRAINER))))
        if record.state.step != manifest.step:
            raise ValueError(f"it is of step {record.state.step}, the manifest of step {manifest.step}")
    except KeyError as error:
        raise AnotherVersionError(
            f"{checkpoint} was written by another version of this program: {one_line(error)} is not known; continue "
            "with that version, or choose another --run_dir"
        ) from error
    except ValueError as error:
        raise ResumeError(f"{checkpoint}: {TRAINER} is damaged ({one_line(error)})") from error
    return record


def _verified(path: Path, written: WrittenFile | None) -> bytes:
    """Return the content of a file. Raises ValueError if it is not the content that was written."""
    if written is None:
        raise ValueError("the manifest does not list it")
    content = read_regular(path, written.bytes)
    if len(content) != written.bytes or hashlib.sha256(content).hexdigest() != written.sha256:
        raise ValueError("its sha256 differs")
    return content
