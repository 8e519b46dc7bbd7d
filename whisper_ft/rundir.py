"""The run directory: its lock, its README, the configuration and the status that outlives a launcher's exit code."""

import fcntl
import json
import os
import socket
import time
from pathlib import Path
from typing import Any

from whisper_ft import durable, yaml12
from whisper_ft.failure import DiskError, LockedError

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
        self._lock: Any = None

    def open(self, config: dict[str, Any]) -> None:
        """Create, lock and describe the directory, and remove what a killed process left. LockedError, DiskError."""
        try:
            for folder in (self.path, self.checkpoints, self.predictions):
                folder.mkdir(parents=True, exist_ok=True)
            self._take_lock()
        except OSError as error:
            raise DiskError(f"--run_dir {self.path}: cannot be written ({error.strerror or error})") from error
        for folder in (self.path, self.checkpoints, self.predictions):
            durable.clean(folder)
        durable.write_text(self.path / "README.txt", README)
        durable.write_text(self.path / "config.yaml", yaml12.dump(config))

    @property
    def best_step(self) -> int | None:
        """Step of the model in best/."""
        try:
            return int(json.loads((self.path / "best.json").read_text(encoding="utf-8"))["step"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def status(self, state: str, step: int, reason: str = "", exit_code: int | None = None) -> None:
        """Replace status.json; a disk that is full must not hide the reason why a run ended."""
        newest = max((p.name for p in self.checkpoints.glob("step-*")), default=None)
        fields = {"state": state, "step": step, "reason": reason, "exit_code": exit_code, "last_checkpoint": newest}
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
