"""Choice of the checkpoint that a run continues from."""

from collections.abc import Callable, Sequence
from pathlib import Path

from whisper_ft.checkpoint.format import ListedCheckpoint, foreign_folders, list_checkpoints, verify
from whisper_ft.checkpoint.record import read_record
from whisper_ft.runtime.errors import ResumeError
from whisper_ft.runtime.printable import counted


def choose(folder: Path, resume: str, best_step: int | None, say: Callable[[str], None]) -> Path | None:
    """Return the checkpoint to continue from, with every byte verified; None if `auto` finds no checkpoints.

    Parameters
        folder: checkpoints folder of the run.
        resume: `auto` takes the newest usable checkpoint, `best` the checkpoint of `best_step`; anything else is the
            path of a checkpoint. If the run was already resumed with this `resume` and saved a checkpoint since, the
            same command was interrupted. It then continues from its newest checkpoint.
        best_step: step of the best evaluation; None if nothing was evaluated.
        say: called with each line for the user.

    Raises ResumeError if checkpoints exist but none can be used, or if the wanted one is missing or damaged. Other
    values than `auto` also raise it if another version of the program wrote the newest usable checkpoint.
    """
    candidates = list_checkpoints(folder)
    for name in foreign_folders(folder):
        say(f"{folder / name} is passed over: it is not named like a checkpoint, such as step-00001000")
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
    """Return the name under which a run records its `--resume`: `best`, or the full path of the checkpoint."""
    return resume if resume == "best" else str(Path(resume).resolve())


def _newest_usable(candidates: Sequence[ListedCheckpoint], say: Callable[[str], None]) -> Path | None:
    """Return the first candidate that can be used; None if there are no candidates.

    Each damaged candidate before it is reported by `say`. Raises ResumeError if all candidates are damaged.
    """
    for candidate in candidates:
        problem = candidate.problem or verify(candidate.path)
        if problem is None:
            return candidate.path
        say(f"checkpoint {candidate.path.name} is not usable: {problem}; trying the one before it")
    if candidates:
        raise ResumeError(
            f"{candidates[0].path.parent} holds {counted(len(candidates), 'checkpoint')} and none is usable. A run "
            "never starts from zero by itself; to start anew, choose another --run_dir or move this one away"
        )
    return None
