"""Quick starts of train.py and evaluate.py: forks of one process that has already imported the libraries.

An import of torch, transformers and datasets takes 4 s of processor time, more than a short run, and the tests start
some 200 programs. A fork is a process with its own pid, arguments, environment, folder, output and exit code. Only the
hash seed and the imported modules are those of the parent. All pytest processes of a session share one
parent. Set FRESH_STARTS=1 to start each program anew.

The tests use the first half of this file; `main` is the parent.
"""

import fcntl
import gc
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
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).parents[1]
MAX_REQUEST_BYTES = 1 << 20
OWNER_LOOK_SECONDS = 1.0  # how often the parent looks whether the pytest session is still there


@dataclass(frozen=True)
class Ended:
    """Exit code and output of a program that has ended."""

    code: int
    out: str
    err: str


class Forked:
    """A program forked from the parent, with the part of subprocess.Popen's interface that the tests use."""

    def __init__(self, line: socket.socket) -> None:
        self._line = line
        self.returncode: int | None = None
        self.pid = int(line.recv(64))

    def poll(self) -> int | None:
        """The exit code if the program has ended, below 0 for a signal."""
        return self._code_within(0)

    def wait(self, timeout: float) -> int:
        """Wait for the exit code. After `timeout` seconds the program is killed, and a TimeoutError raised."""
        code = self._code_within(timeout)
        if code is None:
            os.kill(self.pid, signal.SIGKILL)
            raise TimeoutError(f"process {self.pid} ran for over {timeout} s and was killed")
        return code

    def _code_within(self, seconds: float) -> int | None:
        if self.returncode is None and select.select([self._line], [], [], seconds)[0]:
            message = self._line.recv(64)
            self._line.close()
            assert message, "the parent of the programs died"
            self.returncode = int(message)
        return self.returncode


class Ranks:
    """Processes of one group, as `accelerate launch` would start them, with the interface of `Forked`."""

    def __init__(self, processes: Sequence[Forked]) -> None:
        self.processes = processes

    def poll(self) -> int | None:
        """The exit code if all have ended: of the first rank that has one above 0, else of rank 0."""
        codes = [process.poll() for process in self.processes]
        return None if None in codes else next((code for code in codes if code), 0)

    def wait(self, timeout: float) -> int:
        """Wait for all. After `timeout` seconds they are killed, and a TimeoutError raised."""
        end = time.monotonic() + timeout
        codes = [process.wait(max(end - time.monotonic(), 0.1)) for process in self.processes]
        return next((code for code in codes if code), 0)


class Parent:
    """Client of the process that programs are forked from.

    The first client of a session starts the parent; it ends with the session's main process, whose pid is `owner`.
    """

    def __init__(self, environment: Mapping[str, str], session: str, owner: int) -> None:
        # A short path: the name of a socket has at most 107 bytes.
        folder = Path(tempfile.gettempdir(), f"wft-{session[:24]}")
        folder.mkdir(exist_ok=True)
        self._socket = folder / "socket"
        with locked(folder / "lock"):
            if not self._socket.exists():
                (folder / "environment.json").write_text(json.dumps(dict(environment)))
                self._start(environment, owner)
        self.environment = json.loads((folder / "environment.json").read_text())

    def _start(self, environment: Mapping[str, str], owner: int) -> None:
        argv = [sys.executable, __file__, str(self._socket), str(owner)]
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, env=environment, start_new_session=True)
        while not self._socket.exists():
            assert process.poll() is None, "the parent of the programs did not start"
            time.sleep(0.02)

    def start(self, program: str, arguments: list[str], cwd: Path, out: Any, err: Any, **variables: str) -> Forked:
        """Start a root program; `out` and `err` are open files, `variables` are added to its environment."""
        line = socket.socket(socket.AF_UNIX)
        line.connect(str(self._socket))
        request = {"program": str(ROOT / program), "arguments": arguments, "cwd": str(cwd), "variables": variables}
        socket.send_fds(line, [json.dumps(request).encode()], [out.fileno(), err.fileno()])
        return Forked(line)

    def start_ranks(self, program: str, arguments: list[str], cwd: Path, out: Any, err: Any, processes: int) -> Ranks:
        """Start a root program as so many processes of one group on this machine."""
        groups = rank_variables(processes)
        return Ranks([self.start(program, arguments, cwd, out, err, **variables) for variables in groups])

    def run(
        self, program: str, arguments: list[str], cwd: Path, timeout: float, processes: int = 1, **variables: str
    ) -> Ended:
        """Run a root program to its end; `variables` are those of `start`, for a single process."""
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            if processes == 1:
                code = self.start(program, arguments, cwd, out, err, **variables).wait(timeout)
            else:
                code = self.start_ranks(program, arguments, cwd, out, err, processes).wait(timeout)
            out.seek(0)
            err.seek(0)
            return Ended(code, out.read(), err.read())


def rank_variables(processes: int) -> list[dict[str, str]]:
    """Environment variables of each rank of a group on this machine, as torchrun sets them."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    group = {"WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes)}
    group |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return [group | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(processes)]


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock file, which only one process of the session can do at a time."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def main() -> None:
    """Import what the programs import, then fork one for each request and report its exit code."""
    path, owner = Path(sys.argv[1]), int(sys.argv[2])
    import_programs()
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(f"{path}.new")
    listener.listen(64)
    os.rename(f"{path}.new", path)  # the socket appears when it can be used
    lines: dict[int, socket.socket] = {}
    while is_there(owner):
        ready, _, _ = select.select([listener, woken, *lines.values()], [], [], OWNER_LOOK_SECONDS)
        if woken in ready:
            os.read(woken, 512)
            while lines and (ended := os.waitpid(-1, os.WNOHANG))[0]:
                line = lines.pop(ended[0])
                with suppress(OSError):  # its client is gone
                    line.sendall(str(os.waitstatus_to_exitcode(ended[1])).encode())
                line.close()
        for pid, line in lines.items():
            if line in ready:  # closed: the test is over, or its process was killed
                os.kill(pid, signal.SIGKILL)
        if listener in ready:
            line, _ = listener.accept()
            request, descriptors, _, _ = socket.recv_fds(line, MAX_REQUEST_BYTES, 2)
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
    for pid in lines:
        os.kill(pid, signal.SIGKILL)
    for left in path.parent.iterdir():
        left.unlink()
    path.parent.rmdir()


def import_programs() -> None:
    """Import all modules of the two programs, and fill the caches that each of them would fill anew."""
    sys.path[0] = str(ROOT)
    for program in ("train.py", "evaluate.py"):
        runpy.run_path(str(ROOT / program), run_name="imported")
    from transformers import conversion_mapping

    from whisper_ft.config.parse import load_config
    from whisper_ft.config.scoring import EvaluationConfig
    from whisper_ft.config.training import TrainingConfig

    conversion_mapping.get_checkpoint_conversion_mapping("whisper")  # compiles 1,000 expressions in 0.4 s
    load_config(TrainingConfig, ["--data.path", "x"])
    load_config(EvaluationConfig, ["--predictions", "x"])
    gc.collect()
    gc.freeze()  # a full collection in a fork would copy all pages of these objects


def is_there(pid: int) -> bool:
    """True while a process runs."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def become(request: dict[str, Any], out: int, err: int) -> NoReturn:
    """Run the requested program in this process, to its end."""
    nothing = os.open(os.devnull, os.O_RDONLY)
    for descriptor, standard in ((nothing, 0), (out, 1), (err, 2)):
        os.dup2(descriptor, standard)
        os.close(descriptor)
    os.chdir(request["cwd"])
    os.environ |= request["variables"]
    sys.argv = [request["program"], *request["arguments"]]
    runpy.run_path(request["program"], run_name="__main__")
    sys.exit()


if __name__ == "__main__":
    main()
