"""The run directory: its lock, its README, the configuration and the status that outlives a launcher's exit code."""

import fcntl
import json
import os
import socket
import time
from pathlib import Path
from typing import Any

from whisper_ft import durable, yaml12
from whisper_ft.checkpoint import list_checkpoints
from whisper_ft.failure import DiskError, LockedError
from whisper_ft.state import Best

README = """What is here
============
README.txt        this page
config.yaml       every setting of the run, resolved; usable again with --config
status.json       running, finished, preempted or failed; step, reason, exit code, newest checkpoint
metrics.jsonl     one JSON object per logged step and per evaluation; after {"event": "resumed", "step": N}, earlier
                  lines with a step above N belong to a branch that was given up
quarantine.jsonl  rows of the data that could not be used, with the reason, each once
checkpoints/      step-00001000/: weights, optimizer, state, and a manifest with a sha256 of each; to resume from
best.json         step, metric and value of the best evaluation
best/             the model of that step: a folder for from_pretrained, and for evaluate.py --model
final/            the model after the last update, best or not
index/            what was read of remote data to find the rows in it; may be removed
predictions/      what the model wrote at each evaluation
.lock             held while a run is using this directory

Run the same command again and it goes on from the newest whole checkpoint. The directory may be moved or copied.
"""


class RunDir:
    """Paths and small files of one run. Only the main process writes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = path / "checkpoints"
        self.best, self.final = path / "best", path / "final"
        self.predictions = path / "predictions"
        self.index = path / "index"
        self._lock: Any = None

    def open(self) -> None:
        """Create and lock the directory, and remove what a killed process left. LockedError, DiskError."""
        try:
            for folder in (self.path, self.checkpoints, self.predictions):
                folder.mkdir(parents=True, exist_ok=True)
            self._take_lock()
        except OSError as error:
            raise DiskError(f"--run_dir {self.path}: cannot be written ({error.strerror or error})") from error
        for folder in (self.path, self.checkpoints, self.predictions):
            durable.clean(folder)
        durable.write_text(self.path / "README.txt", README)
        self.status("running")

    def describe(self, config: dict[str, Any]) -> None:
        """Write config.yaml: only once a start is accepted, so that a refused one leaves the run's own."""
        durable.write_text(self.path / "config.yaml", yaml12.dump(config))

    @property
    def published(self) -> Best | None:
        """What best.json says of the model in best/."""
        try:
            return Best(**json.loads((self.path / "best.json").read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    def status(self, state: str, step: int | None = None, reason: str = "", exit_code: int | None = None) -> None:
        """Replace status.json, if this process holds the lock; `step` None is that of the newest checkpoint.

        A disk that is full must not hide the reason why a run ended, so nothing is raised.
        """
        if self._lock is None:
            return
        newest = next((found for found in list_checkpoints(self.checkpoints) if found.problem is None), None)
        fields = {
            "state": state,
            "step": step if step is not None else newest.step if newest else 0,
            "reason": reason,
            "exit_code": exit_code,
            "last_checkpoint": newest.path.name if newest else None,
        }
        try:
            durable.write_json(self.path / "status.json", {**fields, "pid": os.getpid(), "time": time.time()})
        except DiskError as error:
            print(f"warning: {error}", flush=True)

    def _take_lock(self) -> None:
        """Hold .lock for the life of the process; the kernel frees it however the process ends."""
        file = (self.path / ".lock").open("a+", encoding="utf-8")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip()
            raise LockedError(f"{self.path} is in use by another run ({holder or 'not named'})") from None
        file.truncate(0)
        file.write(json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%F %T")}))
        file.flush()
        self._lock = file
