"""The training's end of the pipe to a tracker."""

import importlib.util
import json
import os
import secrets
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from whisper_ft.runtime import atomic
from whisper_ft.runtime.errors import UsageError
from whisper_ft.runtime.signals import STOP_SIGNALS

MOST_WAITING_BYTES = 4_000_000  # some 10,000 rows: of a tracker that hangs, what comes after them is given up
FIGURES = b', "figures": {'  # in each row, and nowhere else
IDENTITY = "tracker-id"  # file in the run directory; a resumed run goes on under it

Ready = Mapping[str, Any]
"""What a tracker begins with: `folder`, `name`, `project`, `identity` and `config` of the run."""


def refuse_missing(names: Iterable[str]) -> None:
    """UsageError for a tracker whose package is not installed."""
    for name in names:
        found = importlib.util.find_spec(name)
        if found is None or found.origin is None:  # without an origin: a folder of that name, as wandb leaves them
            raise UsageError(f"--track.to {name}: its package is not installed; pip install {name}")


def identity_of(folder: Path) -> str:
    """What tells this run from others of the same name, made at its first start and kept in its directory."""
    path = folder / IDENTITY
    if not path.exists():
        atomic.write_text(path, f"{secrets.token_hex(4)}\n")
    return path.read_text(encoding="ascii").strip()


class TrackerProcess:
    """Rows to one tracker in its own process. No method waits, but `close` at most for its deadline."""

    def __init__(self, name: str, ready: Ready, step: int) -> None:
        """Start the process; `step` is where the run goes on. OSError where no process can be started."""
        self.name, self.dropped, self.failures = name, 0, 0
        self._waiting, self._heard = bytearray(), b""
        self._process = _start(name)
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            os.set_blocking(pipe.fileno(), False)
        self._put({**ready, "step": step})

    def send(self, step: int, figures: Mapping[str, float]) -> None:
        """Hand over the figures of a step, or drop them where too much waits already."""
        if len(self._waiting) > MOST_WAITING_BYTES:
            self.dropped += 1
        else:
            self._put({"step": step, "figures": dict(figures)})

    def complaints(self) -> list[str]:
        """What the tracker said of its failures since the last call; it tells the first of them."""
        assert self._process.stdout is not None
        with suppress(BlockingIOError, ValueError):  # nothing to read; closed
            while part := os.read(self._process.stdout.fileno(), 1 << 16):
                self._heard += part
        *lines, self._heard = self._heard.split(b"\n")
        told = [one for line in lines if (one := _message(line))]
        self.failures = max([self.failures, *(one["failures"] for one in told)])
        return [one["why"] for one in told if one["why"]]

    def finish(self, exit_code: int) -> None:
        """Ask the tracker to end."""
        self._put({"exit_code": exit_code})

    def close(self, deadline: float) -> list[str]:
        """Wait for the end, at most until `deadline` (time.monotonic); what went wrong that was not told yet."""
        assert self._process.stdin is not None
        while self._waiting and (left := deadline - time.monotonic()) > 0:
            select.select([], [self._process.stdin], [], left)
            self._push()
        with suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(max(deadline - time.monotonic(), 0))
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            return [*self.complaints(), "it did not end in time; what it had not stored by then is lost"]
        told = self.complaints()
        if code := self._process.returncode:
            told.append(f"its process ended with {code}; what it had not stored by then is lost")
        lost = self.dropped + self.failures
        return [*told, f"rows that could not be logged: {lost}"] if lost else told

    def _put(self, message: Mapping[str, Any]) -> None:
        self._waiting += json.dumps(message, allow_nan=False).encode() + b"\n"
        self._push()

    def _push(self) -> None:
        """As much as the pipe takes now."""
        assert self._process.stdin is not None
        try:
            while self._waiting:
                del self._waiting[: os.write(self._process.stdin.fileno(), self._waiting[: 1 << 16])]
        except BlockingIOError:
            return
        except OSError:  # its process is gone
            self.dropped += self._waiting.count(FIGURES)
            self._waiting.clear()


def _message(line: bytes) -> dict[str, Any] | None:
    """What a tracker said; None for what another program of its interpreter's start printed."""
    try:
        message = json.loads(line)
    except ValueError:
        return None
    return message if isinstance(message, dict) and "failures" in message else None


def _start(name: str) -> subprocess.Popen[bytes]:
    """The process of a tracker; deaf to what asks the run to stop, for then it has the last rows to store."""
    here = str(Path(__file__).resolve().parents[3])
    path = os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH", "")]))
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)  # as the child has them until it ignores them
    try:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "whisper_ft.tracking.backends", name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"PYTHONPATH": path},
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
