"""The run directory: lock, README, configuration, and a status that survives a launcher's exit code."""

import json
import os
import time
from concurrent.futures import Future, wait
from contextlib import suppress
from pathlib import Path
from typing import Any

from whisper_ft.checkpoint.format import list_checkpoints
from whisper_ft.checkpoint.state import Best
from whisper_ft.config import yaml12
from whisper_ft.runtime import atomic
from whisper_ft.runtime.errors import DiskError
from whisper_ft.runtime.lock import lock_folder

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
final/            the model after the last update, best or not
average/          with average.of: the mean of the weights of several checkpoints, which its README names
plots/            curves.png and curves.html, by python -m whisper_ft plot
tensorboard/      with track.to; likewise wandb/. trackio has a folder of its own. Trackers know the run by tracker-id:
                  remove this file from a copy of the folder
index/            cached indexes of remote data and of tar archives; may be removed
predictions/      transcripts of each evaluation
.last-words-N     reason why process N ended, if it failed alone; removed at the next start
.lock             held while a run uses this folder

Run the same command again and it continues from the newest complete checkpoint. The folder may be moved or copied.
`python -m whisper_ft checkpoint list|verify|export` reads the checkpoints. Names that begin with .tmp-, .trash- or
.replaced- belong to an interrupted save and are cleaned up at the next start.
"""


LAST_WORDS = ".last-words-"  # prefix of the file in which a rank leaves the reason of its end
LAST_WORDS_SECONDS = 1.0  # time that a rank waits for the last words of another one


class RunDir:
    """Paths and small files of one run. Only the main process writes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = path / "checkpoints"
        self.best, self.final, self.average = path / "best", path / "final", path / "average"
        self.predictions = path / "predictions"
        self.index = path / "index"
        self.moved_to: Path | None = None
        """New path of the run that was here before, with `overwrite`."""
        self.step: int | None = None
        """Step that the run has reached; None before it began."""
        self.in_flight: Future[Any] | None = None
        """A save that is written while training continues."""
        self._lock: Any = None

    def open(self, overwrite: bool = False) -> None:
        """Create and lock the directory, and remove leftovers of a killed process. LockedError, DiskError.

        With `overwrite`, a run that is here gets another name, once the lock shows that no process uses it.
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
        for folder in (self.path, self.checkpoints, self.predictions):
            atomic.clean(folder)
        for path in self.path.glob(f"{LAST_WORDS}*"):
            path.unlink(missing_ok=True)
        atomic.write_text(self.path / "README.txt", README)
        self.status("running")

    def describe(self, config: dict[str, Any]) -> None:
        """Write config.yaml. Called once a start is accepted, so that a refused start leaves the run's own file."""
        atomic.write_text(self.path / "config.yaml", yaml12.dump(config))

    @property
    def published(self) -> Best | None:
        """Content of best.json, which describes the model in best/; None without one."""
        try:
            return Best(**json.loads((self.path / "best.json").read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    def last_words(self, rank: int, reason: str, *, lost: bool) -> str:
        """Reason why the run ends. A rank that fails alone writes it here; a rank that lost another one reads it here.

        The process group is not used, because it may be the part that broke.
        """
        if not lost:
            if rank:
                with suppress(OSError):
                    (self.path / f"{LAST_WORDS}{rank}").write_text(reason, encoding="utf-8")
            return reason
        deadline = time.monotonic() + LAST_WORDS_SECONDS
        while time.monotonic() < deadline:
            for path in sorted(self.path.glob(f"{LAST_WORDS}*")):
                with suppress(OSError, UnicodeDecodeError):
                    if words := path.read_text(encoding="utf-8"):
                        return f"rank {path.name.removeprefix(LAST_WORDS)}: {words}"
            time.sleep(0.05)
        return reason

    def status(self, state: str, step: int | None = None, reason: str = "", exit_code: int | None = None) -> None:
        """Replace status.json if this process holds the lock. Waits for a save in flight.

        `step` defaults to the step of the newest checkpoint. Nothing is raised, because a full disk must not hide the
        reason why a run ended.
        """
        if self._lock is None:
            return
        if self.in_flight is not None:
            wait([self.in_flight])
        newest = next((listed for listed in list_checkpoints(self.checkpoints) if listed.problem is None), None)
        fields = {
            "state": state,
            "step": step if step is not None else newest.step if newest else 0,
            "reason": reason,
            "exit_code": exit_code,
            "last_checkpoint": newest.path.name if newest else None,
        }
        try:
            atomic.write_json(self.path / "status.json", {**fields, "pid": os.getpid(), "time": time.time()})
        except DiskError as error:
            print(f"warning: {error}", flush=True)

    def _make(self) -> None:
        for folder in (self.path, self.checkpoints, self.predictions):
            folder.mkdir(parents=True, exist_ok=True)

    def _is_used(self) -> bool:
        """True if a run in this folder has logged or saved anything."""
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
