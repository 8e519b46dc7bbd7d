"""The run directory: its lock, its README, the configuration and the status that outlives a launcher's exit code."""

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

README = """What is here
============
README.txt        this page
config.yaml       every setting of the run, resolved; usable again with --config
status.json       running, finished, preempted or failed; step, reason, exit code, newest checkpoint
metrics.jsonl     one JSON object per logged step and per evaluation; after {"event": "resumed", "step": N}, earlier
                  lines with a step above N belong to a branch that was given up
quarantine.jsonl  rows of the data that could not be used, with the reason, each once
checkpoints/      step-00001000/: weights, optimizer, state, and a manifest with a sha256 of each; to resume from.
                  `touch checkpoints/step-00001000/pinned` and that one is never removed
best.json         step, metric and value of the best evaluation
best/             the model of that step: a folder for from_pretrained, and for evaluate.py --model
final/            the model after the last update, best or not
average/          with average.of: the mean of the weights of several checkpoints, which its README names
plots/            curves.png and curves.html, by python -m whisper_ft plot
tensorboard/      with track.to; likewise wandb/. trackio has a folder of its own. tracker-id says which run this is for
                  them: remove it from a copy
index/            what was read of remote data and of tars to find the rows in them; may be removed
predictions/      what the model wrote at each evaluation
.last-words-N     why process N ended, where it failed alone; gone with the next start
.lock             held while a run is using this directory

Run the same command again and it goes on from the newest whole checkpoint. The directory may be moved or copied.
`python -m whisper_ft checkpoint list|verify|export` looks at the checkpoints. Names that begin with .tmp-, .trash- or
.replaced- are of a save that was cut short, and are dealt with at the next start.
"""


LAST_WORDS, LAST_WORDS_SECONDS = ".last-words-", 1.0


class RunDir:
    """Paths and small files of one run. Only the main process writes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = path / "checkpoints"
        self.best, self.final, self.average = path / "best", path / "final", path / "average"
        self.predictions = path / "predictions"
        self.index = path / "index"
        self.moved_to: Path | None = None  # where the run is that was here, with --overwrite
        self.in_flight: Future[Any] | None = None  # a save that is being written while training goes on
        self._lock: Any = None

    def open(self, overwrite: bool = False) -> None:
        """Create and lock the directory, and remove what a killed process left. LockedError, DiskError.

        `overwrite` moves a run that is there to another name, once its lock shows that nobody is using it.
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
        """Write config.yaml: only once a start is accepted, so that a refused one leaves the run's own."""
        atomic.write_text(self.path / "config.yaml", yaml12.dump(config))

    @property
    def published(self) -> Best | None:
        """What best.json says of the model in best/."""
        try:
            return Best(**json.loads((self.path / "best.json").read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    def last_words(self, rank: int, reason: str, *, lost: bool) -> str:
        """Why the run ends. A rank that fails alone leaves it here; one that only lost the others looks for it here.

        Not through the process group, which may be what broke.
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
                    if said := path.read_text(encoding="utf-8"):
                        return f"rank {path.name.removeprefix(LAST_WORDS)}: {said}"
            time.sleep(0.05)
        return reason

    def status(self, state: str, step: int | None = None, reason: str = "", exit_code: int | None = None) -> None:
        """Replace status.json, if this process holds the lock; `step` None is that of the newest checkpoint.

        A disk that is full must not hide the reason why a run ended, so nothing is raised. A save in flight ends first.
        """
        if self._lock is None:
            return
        if self.in_flight is not None:
            wait([self.in_flight])
        newest = next((found for found in list_checkpoints(self.checkpoints) if found.problem is None), None)
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
        """Whether a run was here that did something."""
        return (self.path / "metrics.jsonl").exists() or any(self.checkpoints.glob("step-*"))

    def _move_away(self) -> None:
        """Give the directory the first free name; what a link points to, where it is one."""
        used = self.path.resolve()
        number = 1
        while os.path.lexists(away := used.with_name(f"{used.name}.replaced-{number}")):
            number += 1
        used.rename(away)
        used.mkdir()
        atomic.sync_folder(used.parent)
        self.moved_to = away
