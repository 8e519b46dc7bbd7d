"""Run directory: its lock, README, configuration, and a status.json that tells how the run ended."""

import os
import time
from concurrent.futures import Future, wait
from contextlib import suppress
from pathlib import Path
from typing import Any

from whisper_ft.checkpoint.format import list_checkpoints
from whisper_ft.checkpoint.state import Best, read_best
from whisper_ft.config import yaml12
from whisper_ft.runtime import atomic
from whisper_ft.runtime.errors import DiskError
from whisper_ft.runtime.lock import LOCK, identity_of, lock_folder
from whisper_ft.runtime.printable import say
from whisper_ft.runtime.redaction import redacted
from whisper_ft.runtime.regular_file import read_regular, strict_json

README = """Contents of this folder
=======================
README.txt        this page
config.yaml       every setting of the run, resolved; usable again with --config
status.json       state (running, finished, preempted or failed), step, reason, exit code, newest checkpoint
metrics.jsonl     one JSON object for each logged step and each evaluation. After {"event": "resumed", "step": N},
                  earlier lines with a step above N are not part of the run any more
quarantine.jsonl  rows of the data that could not be used, with the reason, each once
checkpoints/      step-00001000/: weights, optimizer, state, and a manifest with a sha256 of each file; to resume from.
                  `touch checkpoints/step-00001000/pinned` protects that checkpoint from removal
best.json         step, metric and value of the best evaluation
best/             the model of that step: a folder for from_pretrained, and for evaluate.py --model
best-adapter/     of a run with an adapter: the adapter of that step, for peft and for evaluate.py --model. best/ is
                  written at the end, with it merged; without an evaluation, final/ is, from final-adapter/
final/            the model after the last update, best or not
average/          with average.of: the mean of the weights of several checkpoints, which its README names
interpolated/     with average.interpolate: the best mixture of the start model and best/, with interpolation.html about
                  all of them. interpolated-scores/ has the transcripts of each
plots/            curves.png and curves.html, by python -m whisper_ft plot
tensorboard/      with track.to; likewise wandb/. trackio has a folder of its own. Trackers know the run by tracker-id:
                  remove this file from a copy of the folder
index/            cached indexes of remote data and of tar archives; may be removed
predictions/      transcripts of each evaluation; those of a set of eval.sets in a folder with its name
.last-words-N     reason why process N ended, if it failed alone; removed at the next start, as is .reported
.lock             held while a run uses this folder

Run the same command again and it continues from the newest complete checkpoint. The folder may be moved or copied.
`python -m whisper_ft checkpoint list|verify|export` reads the checkpoints. Names that begin with .tmp-, .trash- or
.replaced- belong to an interrupted save and are cleaned up at the next start.
"""


LAST_WORDS = ".last-words-"  # prefix of the file in which a rank writes why it ended
LAST_WORDS_SECONDS = 1.0  # how long a rank waits for the reason that another rank writes
LAST_WORDS_BYTES = STATUS_BYTES = 1 << 20  # largest file of a reason and largest status.json that are read
REPORTED = ".reported"  # file of the rank that wrote status.json in place of the main one


class RunDir:
    """Paths and small files of one run. Only the main process writes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = path / "checkpoints"
        self.best, self.final, self.average = path / "best", path / "final", path / "average"
        self.best_adapter, self.final_adapter = path / "best-adapter", path / "final-adapter"
        self.average_adapter, self.interpolated = path / "average-adapter", path / "interpolated"
        self.predictions = path / "predictions"
        self.index = path / "index"
        self.moved_to: Path | None = None
        """New path of the run that was here before, with `overwrite`."""
        self.step: int | None = None
        """Step that the run has reached; None before it began."""
        self.in_flight: Future[Any] | None = None
        """A save that is written while training continues."""
        self._lock: Any = None
        self._identity: tuple[int, int] | None = None

    def open(self, overwrite: bool = False) -> None:
        """Create and lock the directory, remove leftovers of a killed process, and set the status to `running`.

        Main process only. With `overwrite`, an earlier run in the directory is renamed, after the lock has shown that
        no process uses it; `moved_to` is then its new path.

        Raises LockedError if another process uses the directory, and DiskError if the directory cannot be written.
        """
        try:
            self._make()
            self._lock = lock_folder(self.path, "run")
            if overwrite and self._is_used():
                self._move_away()
                self._make()
                self._lock = lock_folder(self.path, "run")
        except OSError as error:
            raise DiskError(f"--run_dir {self.path}: cannot be written ({error.strerror or error})") from error
        self.remember()
        for folder in (self.path, self.checkpoints, self.predictions):
            atomic.clean(folder)
        for path in (*self.path.glob(f"{LAST_WORDS}*"), self.path / REPORTED):
            path.unlink(missing_ok=True)
        atomic.write_text(self.path / "README.txt", README)
        self.status("running")

    def remember(self) -> None:
        """Remember the device and inode of the lock. Every rank calls it, after the main process opened the folder."""
        self._identity = identity_of(self.path / LOCK)

    @property
    def is_own(self) -> bool:
        """False if the folder or its lock was removed, moved or replaced since `remember`; True before `remember`.

        Whatever is at the path then belongs to somebody else, so nothing may be written there.
        """
        return self._identity is None or identity_of(self.path / LOCK) == self._identity

    @property
    def loss(self) -> DiskError | None:
        """Error with which a run ends whose directory is not its own any more; None on other ranks than the main one.

        It is looked for at every step, before each save and before anything is published.
        """
        if self._lock is None or self.is_own:
            return None
        return DiskError(
            f"--run_dir {self.path}: {LOCK} in it is missing or another file than the one that this run has locked, "
            "because the directory was removed, moved or replaced, or its disk unmounted. Nothing more is written "
            "there; put it back, or name its new place, and run the same command again"
        )

    def require_own(self) -> None:
        """Raise DiskError if the directory is not this run's any more. Only the main rank checks it."""
        if loss := self.loss:
            raise loss

    def describe(self, config: dict[str, Any]) -> None:
        """Write config.yaml, once a start is accepted, because a refused start must leave the earlier file.

        Raises DiskError if it cannot be written, or if the directory is not this run's any more.
        """
        self.require_own()
        atomic.write_text(self.path / "config.yaml", yaml12.dump(config))

    @property
    def published(self) -> Best | None:
        """Content of best.json, which describes the model in best/; None if it is missing or damaged."""
        return read_best(self.path / "best.json")

    def leave_last_words(self, rank: int, reason: str, code: int) -> None:
        """Write why a rank ends by itself, for ranks that will only see that it is gone.

        Nothing is written for rank 0, or if the directory is not this run's any more.
        The ranks exchange files, because the process group may be what broke.
        """
        if rank and self.is_own:
            with suppress(OSError, DiskError):
                atomic.write_json(self.path / f"{LAST_WORDS}{rank}", {"reason": redacted(reason), "exit_code": code})

    def last_words(self) -> tuple[str, int] | None:
        """Return the reason and the exit code of another rank that ended by itself.

        Waits for them for a second; None if no rank leaves any.
        """
        deadline = time.monotonic() + LAST_WORDS_SECONDS
        while self.is_own and time.monotonic() < deadline:
            for path in sorted(self.path.glob(f"{LAST_WORDS}*")):
                with suppress(OSError, ValueError, KeyError, TypeError):
                    words = strict_json(read_regular(path, LAST_WORDS_BYTES))
                    return f"rank {path.name.removeprefix(LAST_WORDS)}: {words['reason']}", int(words["exit_code"])
            time.sleep(0.05)
        return None

    def status(self, state: str, step: int | None = None, reason: str = "", exit_code: int | None = None) -> None:
        """Replace status.json, if this process holds the lock of the folder. Waits for a save in flight.

        `step` defaults to the step of the newest checkpoint. An error of the disk is printed and not raised, because it
        must not hide the reason why a run ended.
        """
        if self._lock is None:
            return
        if self.in_flight is not None:
            wait([self.in_flight])
        if not self.is_own:
            return
        self._write_status(state, step, reason, exit_code)

    def report_for_main(self, reason: str, exit_code: int) -> bool:
        """Write `failed` to status.json on another rank than the main one, if the main one hangs and has not.

        It is written only if the file still says `running`, and by one rank only. Returns True if this call wrote it.
        """
        if self._lock is not None or self._identity is None or not self.is_own:
            return False
        with suppress(OSError, ValueError, KeyError, TypeError):
            if strict_json(read_regular(self.path / "status.json", STATUS_BYTES))["state"] == "running":
                (self.path / REPORTED).touch(exist_ok=False)
                self._write_status("failed", self.step or None, reason, exit_code)
                return True
        return False

    def _write_status(self, state: str, step: int | None, reason: str, exit_code: int | None) -> None:
        newest = next((listed for listed in list_checkpoints(self.checkpoints) if listed.problem is None), None)
        fields = {
            "state": state,
            "step": step if step is not None else newest.step if newest else 0,
            "reason": redacted(reason),
            "exit_code": exit_code,
            "last_checkpoint": newest.path.name if newest else None,
        }
        try:
            atomic.write_json(self.path / "status.json", {**fields, "pid": os.getpid(), "time": time.time()})
        except DiskError as error:
            say(f"warning: {error}")

    def _make(self) -> None:
        for folder in (self.path, self.checkpoints, self.predictions):
            folder.mkdir(parents=True, exist_ok=True)

    def _is_used(self) -> bool:
        """Return True if a run in this folder has logged or saved anything."""
        return (self.path / "metrics.jsonl").exists() or any(self.checkpoints.glob("step-*"))

    def _move_away(self) -> None:
        """Rename the folder to the first free name; if it is a link, rename its target."""
        used = self.path.resolve()
        number = 1
        while os.path.lexists(away := used.with_name(f"{used.name}.replaced-{number}")):
            number += 1
        used.rename(away)
        used.mkdir()
        atomic.sync_folder(used.parent)
        self.moved_to = away
