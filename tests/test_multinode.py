"""Several machines: two network namespaces of this one, joined by a cable that can be slow, lossy or cut."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.conftest import ROOT, START_SECONDS, Ended, Trainer, all_signals_heard, digest, environment, logged
from whisper_ft.runtime.collectives import LEAST_PULSE

MASTER = "10.77.0.1"
SETTINGS = {"steps": 20, "eval__every": 10, "save__every": 5}
WIRE = """
import heapq, random, select, signal, socket, sys, time

delay, loss = float(sys.argv[1]), float(sys.argv[2])
ends, under_way, seen, lost = [], [], 0, 0
for name in ("left", "right"):
    end = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))  # ETH_P_ALL
    end.setsockopt(263, 15, 1)  # SOL_PACKET, PACKET_VNET_HDR: with the checksums that are left to a network card
    end.bind((name, 0))
    ends.append(end)
signal.signal(signal.SIGTERM, lambda *_: sys.exit(f"{lost} of {seen} frames were lost"))
random.seed(1)
print("ready", flush=True)
while True:
    pause = max(0, under_way[0][0] - time.monotonic()) if under_way else None
    for end in select.select(ends, [], [], pause)[0]:
        frame, (_, _, kind, *_) = end.recvfrom(1 << 17)
        if kind == socket.PACKET_OUTGOING:
            continue
        seen += 1
        if random.random() < loss:
            lost += 1
        else:
            heapq.heappush(under_way, (time.monotonic() + delay, seen, frame, ends[end is ends[0]]))
    while under_way and under_way[0][0] <= time.monotonic():
        *_, frame, to = heapq.heappop(under_way)
        to.send(frame)
"""
EVALUATES = """
import sys, time
from pathlib import Path
from whisper_ft.runtime.collectives import Collectives
from whisper_ft.runtime.errors import LostRankError
from whisper_ft.runtime.exit import exit_process, report_error
from whisper_ft.runtime.parent import end_with_parent
from whisper_ft.runtime.processes import start_processes

end_with_parent()
start_processes("cpu")
ranks = Collectives(timeout=5)
ranks.gather("all are there")
Path(sys.argv[1], str(ranks.rank)).touch()
try:
    if ranks.rank == 0:
        time.sleep(10)  # it evaluates
    ranks.gather("and have evaluated")
except LostRankError as error:
    report_error(error, ranks)
    exit_process(1)
"""


class Machines:
    """Two namespaces, `eth0` of each at an end of the cable."""

    def __init__(self, names: list[str]) -> None:
        self.names = names

    def command(self, node: int, *arguments: str) -> list[str]:
        """A command line as it is run on one of the machines."""
        return ["ip", "netns", "exec", self.names[node], *arguments]

    def cable(self, state: str) -> None:
        """Cut it (`down`) or mend it (`up`)."""
        subprocess.run(["ip", "-n", self.names[0], "link", "set", "eth0", state], check=True)

    def start(self, *arguments: str, **variables: str) -> list[subprocess.Popen[str]]:
        """launch.sh on both, in one process each."""
        given = environment(1) | {"NODES": "2", "MASTER_ADDR": MASTER} | variables
        with all_signals_heard():
            return [
                subprocess.Popen(
                    self.command(node, str(ROOT / "launch.sh"), *arguments),
                    cwd=ROOT,
                    env=given | {"NODE_RANK": str(node)},
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                    start_new_session=True,
                )
                for node in range(2)
            ]

    def run(self, *arguments: str) -> list[Ended]:
        """How launch.sh ended on both."""
        return ends(self.start(*arguments), START_SECONDS)


def ends(started: list[subprocess.Popen[str]], seconds: float) -> list[Ended]:
    """How programs ended; all are killed when one has not after so many seconds."""
    try:
        said = [one.communicate(timeout=seconds) for one in started]
    finally:
        for one in started:
            if one.poll() is None:
                os.killpg(one.pid, signal.SIGKILL)
    return [Ended(one.returncode, out, err) for one, (out, err) in zip(started, said, strict=True)]


def ip(*arguments: str) -> None:
    """Skips the test where networks may not be made."""
    if shutil.which("ip") is None:
        pytest.skip("there is no `ip` here; install iproute2 (apt-get install iproute2)")
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"network namespaces are not permitted here ({done.stderr.strip()}); run as root")


@contextmanager
def namespaces(*kinds: str) -> Iterator[list[str]]:
    """Their names; with them goes all that is in them."""
    names = [f"whisper-ft-{os.getpid()}-{kind}" for kind in kinds]
    with ExitStack() as stack:
        for name in names:
            ip("netns", "add", name)
            stack.callback(subprocess.run, ["ip", "netns", "delete", name], check=True)
        yield names


@pytest.fixture
def machines() -> Iterator[Machines]:
    """Two, at one cable."""
    with namespaces("a", "b") as names:
        ip("link", "add", "eth0", "netns", names[0], "type", "veth", "peer", "name", "eth0", "netns", names[1])
        give_addresses(names)
        yield Machines(names)


@pytest.fixture
def far_machines() -> Iterator[Machines]:
    """Two with a third between them, which passes on what they send 10 ms later, or in 2 of 100 cases never.

    What `tc qdisc add dev eth0 root netem delay 10ms loss 2%` does, where the kernel has netem; not all have.
    """
    with namespaces("a", "b", "wire") as names:
        *ends_of_cable, wire = names
        for name, end in zip(ends_of_cable, ("left", "right"), strict=True):
            ip("link", "add", "eth0", "netns", name, "type", "veth", "peer", "name", end, "netns", wire)
            ip("-n", wire, "link", "set", end, "up")
        give_addresses(ends_of_cable)
        passing_on = subprocess.Popen(
            ["ip", "netns", "exec", wire, sys.executable, "-c", WIRE, "0.01", "0.02"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert passing_on.stdout is not None
        assert passing_on.stdout.readline() == "ready\n"
        try:
            yield Machines(ends_of_cable)
        finally:
            passing_on.terminate()
            _, told = passing_on.communicate(timeout=START_SECONDS)
        assert re.fullmatch(r"[1-9]\d* of \d+ frames were lost\n", told)


def give_addresses(names: list[str]) -> None:
    for node, name in enumerate(names):
        ip("-n", name, "address", "add", f"10.77.0.{node + 1}/24", "dev", "eth0")
        ip("-n", name, "link", "set", "lo", "up")
        ip("-n", name, "link", "set", "eth0", "up")


@pytest.fixture(scope="module")
def whole(shared: Path, corpus: Path, micro_whisper: Path) -> str:
    """The digest of an uninterrupted run in two processes of one machine."""
    return digest(Trainer(shared, corpus, micro_whisper, shared).reference(2, **SETTINGS))


def wait_until(is_so: Callable[[], bool], started: list[subprocess.Popen[str]]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not is_so():
        assert all(one.poll() is None for one in started), ends(started, 1)
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.long
def test_two_machines_train_as_two_processes_of_one_do(train: Trainer, machines: Machines, whole: str):
    ended = machines.run(*train.arguments("run", **SETTINGS))
    assert [(one.code, one.err) for one in ended] == [(0, ""), (0, "")]
    assert ended[0].out.count("finished at step 20") == 1
    assert ended[1].out == "", "only the main process speaks"
    assert digest(train.folder / "run") == whole


@pytest.mark.matrix
def test_a_slow_line_that_loses_some_changes_no_weight(train: Trainer, far_machines: Machines, whole: str):
    assert [one.code for one in far_machines.run(*train.arguments("run", **SETTINGS))] == [0, 0]
    assert digest(train.folder / "run") == whole


@pytest.mark.matrix
def test_a_line_that_is_cut_ends_both_machines_in_time_and_the_same_command_goes_on(
    train: Trainer, machines: Machines, whole: str
):
    arguments = train.arguments("run", **SETTINGS, rank_timeout=5)
    started = machines.start(*arguments)
    wait_until(lambda: logged(7)(train.folder / "run"), started)
    machines.cable("down")
    ended = ends(started, 45)
    status = json.loads((train.folder / "run/status.json").read_text())
    assert (status["state"], status["exit_code"]) == ("failed", 1)
    for one in ended:
        assert (one.code, one.err.count("\n")) == (1, 1), one.err
        assert "--rank_timeout" in one.err
    machines.cable("up")
    assert [one.code for one in machines.run(*arguments)] == [0, 0]
    assert digest(train.folder / "run") == whole


@pytest.mark.matrix
def test_a_line_that_is_cut_while_one_machine_evaluates_ends_both(machines: Machines, tmp_path: Path):
    """Nothing is sent then for as long as an evaluation takes, so nothing is missed."""
    (tmp_path / "program.py").write_text(EVALUATES)
    started = machines.start(str(tmp_path / "program.py"), str(tmp_path))
    wait_until(lambda: all((tmp_path / rank).exists() for rank in "01"), started)
    machines.cable("down")
    for one in ends(started, LEAST_PULSE + 60):
        assert one.code == 1, one
        assert "another process of this run did not come" in one.err


@pytest.mark.matrix
def test_a_signal_to_one_machine_saves_and_ends_both(train: Trainer, machines: Machines, whole: str):
    arguments = train.arguments("run", **SETTINGS)
    started = machines.start(*arguments)
    wait_until(lambda: logged(3)(train.folder / "run"), started)
    started[1].send_signal(signal.SIGTERM)
    assert [(one.code, one.err) for one in ends(started, START_SECONDS)] == [(75, ""), (75, "")]
    assert [one.code for one in machines.run(*arguments)] == [0, 0]
    assert digest(train.folder / "run") == whole


@pytest.mark.long
@pytest.mark.parametrize(
    ("rank", "address", "code", "told"),
    [
        pytest.param("0", "127.0.0.1", 1, "error: not all machines came to 127.0.0.1:", marks=pytest.mark.matrix),
        pytest.param("1", "127.0.0.1", 1, "error: not all machines came to 127.0.0.1:", marks=pytest.mark.matrix),
        ("1", "nowhere.invalid", 2, "error: MASTER_ADDR=nowhere.invalid: cannot be reached from this machine ("),
    ],
)
def test_a_machine_that_does_not_come_is_told_in_one_line(
    tmp_path: Path, rank: str, address: str, code: int, told: str
):
    (tmp_path / "program.py").write_text("")
    meeting = {"NODES": "2", "NODE_RANK": rank, "MASTER_ADDR": address, "MASTER_PORT": str(free_port())}
    ended = launch(str(tmp_path / "program.py"), **meeting, JOIN_SECONDS="3")
    assert (ended.code, ended.err.count("\n")) == (code, 1), ended.err
    assert ended.err.startswith(told)


@pytest.mark.matrix
def test_a_port_that_is_taken_is_told_in_one_line(tmp_path: Path):
    (tmp_path / "program.py").write_text("")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        meeting = {"NODES": "2", "NODE_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        ended = launch(str(tmp_path / "program.py"), **meeting)
    assert ended.code == 2
    assert ended.err == f"error: MASTER_PORT: 127.0.0.1:{port} is in use here; take another, the same on all machines\n"


def launch(*arguments: str, **variables: str) -> Ended:
    argv = [str(ROOT / "launch.sh"), *arguments]
    done = subprocess.run(argv, env=environment(1) | variables, capture_output=True, text=True, timeout=START_SECONDS)
    return Ended(done.returncode, done.stdout, done.stderr)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])
