"""Quick starts of train.py and evaluate.py: forked from a process that has already imported what they import.

An import of torch, transformers and datasets takes most of the time of a short run, and the tests make some 200. Each
run is a process as real as any, with its own pid, arguments, environment, directory, output and exit; only the hash
seed and what was imported are its parent's. Set FRESH_STARTS=1, as `make test-long` does, to start each anew.

The first half of this file is used by the tests, `main` is the parent.
"""

import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).parents[1]
MOST_REQUEST_BYTES = 1 << 20


@dataclass(frozen=True)
class Ended:
    """A program that ran."""

    code: int
    out: str
    err: str


class Forked:
    """A process of the parent, with the part of subprocess.Popen's interface that the tests use."""

    def __init__(self, line: socket.socket) -> None:
        self._line = line
        self.returncode: int | None = None
        self.pid = int(line.recv(64))

    def poll(self) -> int | None:
        """The exit code if it has ended, below 0 for a signal."""
        return self._ended_within(0)

    def wait(self, timeout: float) -> int:
        """The exit code, waited for. TimeoutError after `timeout` seconds, when it is killed."""
        code = self._ended_within(timeout)
        if code is None:
            os.kill(self.pid, signal.SIGKILL)
            raise TimeoutError(f"process {self.pid} ran for over {timeout} s and was killed")
        return code

    def _ended_within(self, seconds: float) -> int | None:
        if self.returncode is None and select.select([self._line], [], [], seconds)[0]:
            told = self._line.recv(64)
            self._line.close()
            assert told, "the parent of the programs died"
            self.returncode = int(told)
        return self.returncode


class Parent:
    """The process that others are forked from, with its environment; it ends with the one that started it."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.environment = dict(environment)
        self._folder = tempfile.TemporaryDirectory()  # short: the name of a socket has at most 107 bytes
        self._at = f"{self._folder.name}/s"
        self._process = subprocess.Popen(
            [sys.executable, __file__, self._at], stdin=subprocess.PIPE, env=self.environment, start_new_session=True
        )
        while not Path(self._at).exists():
            assert self._process.poll() is None, "the parent of the programs did not start"
            time.sleep(0.02)

    def start(self, program: str, arguments: list[str], cwd: Path, out: Any, err: Any) -> Forked:
        """Start a root program; `out` and `err` are open files."""
        line = socket.socket(socket.AF_UNIX)
        line.connect(self._at)
        request = {"program": str(ROOT / program), "arguments": arguments, "cwd": str(cwd)}
        socket.send_fds(line, [json.dumps(request).encode()], [out.fileno(), err.fileno()])
        return Forked(line)

    def run(self, program: str, arguments: list[str], cwd: Path, timeout: float) -> Ended:
        """Run a root program to its end."""
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            code = self.start(program, arguments, cwd, out, err).wait(timeout)
            out.seek(0)
            err.seek(0)
            return Ended(code, out.read(), err.read())


def main() -> None:
    """Import what the programs import, then fork one for each request and tell how it ended."""
    sys.path[0] = str(ROOT)
    import train  # noqa: F401 - and with it all that evaluate.py needs

    del sys.modules["train"]  # to be run as __main__ by who is forked
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(sys.argv[1] + ".new")
    listener.listen(16)
    os.rename(sys.argv[1] + ".new", sys.argv[1])  # it is there once it can be asked
    lines: dict[int, socket.socket] = {}
    while True:
        ready, _, _ = select.select([listener, woken, sys.stdin], [], [])
        if sys.stdin in ready:  # closed: the tests are over, or were killed
            for pid in lines:
                os.kill(pid, signal.SIGKILL)
            return
        if woken in ready:
            os.read(woken, 512)
            while lines and (ended := os.waitpid(-1, os.WNOHANG))[0]:
                line = lines.pop(ended[0])
                line.sendall(str(os.waitstatus_to_exitcode(ended[1])).encode())
                line.close()
        if listener in ready:
            line, _ = listener.accept()
            request, descriptors, _, _ = socket.recv_fds(line, MOST_REQUEST_BYTES, 2)
            if pid := os.fork():
                for descriptor in descriptors:
                    os.close(descriptor)
                lines[pid] = line
                line.sendall(str(pid).encode())
            else:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                for thing in (listener, line, *lines.values()):
                    thing.close()
                for descriptor in (woken, wake):
                    os.close(descriptor)
                become(json.loads(request), *descriptors)


def become(request: dict[str, Any], out: int, err: int) -> NoReturn:
    """Be the program that was asked for, to its end."""
    nothing = os.open(os.devnull, os.O_RDONLY)
    for descriptor, standard in ((nothing, 0), (out, 1), (err, 2)):
        os.dup2(descriptor, standard)
        os.close(descriptor)
    os.chdir(request["cwd"])
    sys.argv = [request["program"], *request["arguments"]]
    runpy.run_path(request["program"], run_name="__main__")
    sys.exit()


if __name__ == "__main__":
    main()
