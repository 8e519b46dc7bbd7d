"""Choice of the checkpoint that a run continues from."""

from collections.abc import Callable, Sequence
from pathlib import Path

from whisper_ft.checkpoint.format import ListedCheckpoint, list_checkpoints, verify
from whisper_ft.checkpoint.record import read_record
from whisper_ft.runtime.errors import ResumeError


def choose(folder: Path, resume: str, best_step: int | None, say: Callable[[str], None]) -> Path | None:
    """Checkpoint to continue from, every byte verified; None for a fresh start. ResumeError if all are damaged.

    Parameters
        resume: auto takes the newest usable checkpoint, best the checkpoint of `best_step`; anything else is the path
            of a checkpoint. If the newest checkpoint belongs to a branch that began with this `resume`, the same
            command was interrupted, so it continues there.
        say: reports a line for the user.
    """
    candidates = list_checkpoints(folder)
    if resume == "auto":
        return _newest_usable(candidates, say)
    for candidate in candidates:
        if candidate.problem is None and verify(candidate.path) is None:
            branch = read_record(candidate.path).branch
            if branch and branch.resume == branch_name(resume):
                say(
                    f"--resume {resume} began at step {branch.step} and continues from its newest checkpoint; "
                    "to begin again, name the folder of a checkpoint or another --run_dir"
                )
                return candidate.path
            break
    if resume != "best":
        if problem := verify(Path(resume)):
            raise ResumeError(f"--resume {resume}: not usable: {problem}")
        return Path(resume)
    of_best_step = [candidate for candidate in candidates if candidate.step == best_step]
    if not of_best_step:
        raise ResumeError(f"--resume best: {folder} holds no checkpoint of the best step")
    return _newest_usable(of_best_step, say)


def branch_name(resume: str) -> str:
    """Name under which a run records its `--resume`: best, or the full path."""
    return resume if resume == "best" else str(Path(resume).resolve())


def _newest_usable(candidates: Sequence[ListedCheckpoint], say: Callable[[str], None]) -> Path | None:
    """First candidate that verifies, with a line for each one before it. ResumeError if none of them does."""
    for candidate in candidates:
        problem = candidate.problem or verify(candidate.path)
        if problem is None:
            return candidate.path
        say(f"checkpoint {candidate.path.name} is not usable: {problem}; trying the one before it")
    if candidates:
        raise ResumeError(
            f"{candidates[0].path.parent} holds {len(candidates)} checkpoints and none is usable. A run never starts "
            "from zero by itself; to start anew, choose another --run_dir or move this one away"
        )
    return None
