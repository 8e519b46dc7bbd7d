"""Which checkpoint a run goes on from."""

from collections.abc import Callable, Sequence
from pathlib import Path

from whisper_ft.checkpoint.format import ListedCheckpoint, list_checkpoints, read_record, verify
from whisper_ft.runtime.errors import ResumeError


def choose(folder: Path, resume: str, best_step: int | None, say: Callable[[str], None]) -> Path | None:
    """The checkpoint to go on from, deeply verified; None for a fresh start. ResumeError when all are damaged.

    `resume`: auto takes the newest usable one, best the one of `best_step`, anything else is a checkpoint's path. Where
    the newest one was saved by a run that began so (its `branch`), the same command was interrupted and goes on there.
    """
    candidates = list_checkpoints(folder)
    if resume == "auto":
        return _newest_usable(candidates, say)
    for found in candidates:
        if found.problem is None and verify(found.path) is None:
            branch = read_record(found.path).get("branch")
            if branch and branch["resume"] == branch_name(resume):
                say(
                    f"--resume {resume} began at step {branch['step']} and goes on from its newest checkpoint; "
                    "to begin anew, name a checkpoint's folder or another --run_dir"
                )
                return found.path
            break
    if resume != "best":
        if problem := verify(Path(resume)):
            raise ResumeError(f"--resume {resume}: not usable: {problem}")
        return Path(resume)
    of_best_step = [found for found in candidates if found.step == best_step]
    if not of_best_step:
        raise ResumeError(f"--resume best: {folder} holds no checkpoint of the best step")
    return _newest_usable(of_best_step, say)


def branch_name(resume: str) -> str:
    """What a run that began with `--resume` remembers it by: best, or the full path."""
    return resume if resume == "best" else str(Path(resume).resolve())


def _newest_usable(candidates: Sequence[ListedCheckpoint], say: Callable[[str], None]) -> Path | None:
    """The first that verifies, a line for each before it; None of none, ResumeError if all are damaged."""
    for found in candidates:
        problem = found.problem or verify(found.path)
        if problem is None:
            return found.path
        say(f"checkpoint {found.path.name} is not usable: {problem}; trying the one before")
    if candidates:
        raise ResumeError(
            f"{candidates[0].path.parent} holds {len(candidates)} checkpoints and none is usable; this run will not "
            "start from zero by itself. Choose another --run_dir, or move this one away, to start anew"
        )
    return None
