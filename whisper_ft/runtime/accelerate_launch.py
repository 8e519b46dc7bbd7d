"""Run `accelerate launch` in this process, pass signals on to its programs, and return their exit code.

Plain `accelerate launch` has four faults that this module avoids:

- on SIGTERM it ends and leaves a single program running
- on Ctrl-C it prints its own traceback
- for every exit code of a program other than 0 it returns 1
- it ignores SIGUSR1
"""

import argparse
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from ipaddress import ip_address
from types import FrameType
from typing import Any

import psutil  # type: ignore[import-untyped]

from whisper_ft.runtime.errors import LostRankError, UsageError
from whisper_ft.runtime.exit_codes import BUG
from whisper_ft.runtime.parent import LAUNCHER
from whisper_ft.runtime.printable import say
from whisper_ft.runtime.signals import STOP_SIGNALS

TORCH_LOG_LEVEL = "TORCH_CPP_LOG_LEVEL"
SHUTDOWN_SECONDS = 30  # seconds after which torchrun kills a process that ignores SIGTERM
ANYWHERE = "192.0.2.1"  # an address that nobody has (RFC 5737), so the route to it is the default route


class SignalForwarder:
    """Passes stop signals from the launcher on to its programs. The launcher then waits for the programs to end.

    Every stop signal is passed on as SIGTERM, on which a program saves and stops. A second Ctrl-C is passed on as
    SIGINT and ends the programs at once. A signal that comes before a program was started ends the launcher.

    A terminal also sends Ctrl-C directly to a single program, on which the added SIGTERM has no further effect. It does
    not reach programs of torchrun, because these have their own session.
    """

    def __init__(self) -> None:
        self.passed_on: set[int] = set()

    def listen(self) -> None:
        """Take over the stop signals, except those that are ignored, such as SIGHUP under nohup."""
        for number in STOP_SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._pass_on)

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        programs = psutil.Process().children()
        if not programs and not self.passed_on:  # no program was started yet
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        is_again = number == signal.SIGINT and number in self.passed_on
        self.passed_on.add(number)
        for program in programs:
            try:
                program.send_signal(signal.SIGINT if is_again else signal.SIGTERM)
            except psutil.NoSuchProcess:
                continue


def launch_and_wait(argv: Sequence[str]) -> int:
    """Run `accelerate launch ARGV`, pass stop signals on, and return the exit code, which is 128 + n for signal n.

    A signal that ended a program, but was not passed on, is named on standard error. Raises UsageError if the address
    of the first machine cannot be reached or its port is in use. Raises LostRankError if a machine does not come.
    """
    forwarder = SignalForwarder()
    forwarder.listen()
    os.environ[LAUNCHER] = str(os.getpid())
    code = launch(argv)
    if code < 0 and not forwarder.passed_on:  # the program itself could not print a reason
        hint = ": did memory run out?" if -code == signal.SIGKILL else ""
        say(f"error: a process was ended by {signal.Signals(-code).name}{hint}", file=sys.stderr)
    return code if code >= 0 else 128 - code


def launch(argv: Sequence[str]) -> int:
    """Run `accelerate launch` and return the exit code of its program, or -n after signal n.

    For several processes, `most_telling` chooses the code. Raises UsageError if the address of the first machine cannot
    be reached or its port is in use. Raises LostRankError if a machine does not come.
    """
    with quiet_torch():
        from accelerate.commands.launch import launch_command
        from torch.distributed import DistError
        from torch.distributed.elastic.multiprocessing.api import SignalException
        from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    arguments = _parsed(argv)
    meeting = f"{arguments.main_process_ip}:{arguments.main_process_port}"
    if arguments.main_process_ip:
        use_interface_to(arguments.main_process_ip)
    try:
        launch_command(arguments)
    except subprocess.CalledProcessError as error:
        return error.returncode
    except ChildFailedError as error:
        return most_telling(codes_of(error.failures.values()))
    except SignalException as error:
        return -error.sigval
    except ConnectionError as error:  # raised by accelerate for a port in use
        raise UsageError(f"MASTER_PORT: {meeting} is in use here; take another, the same on all machines") from error
    except DistError as error:
        raise LostRankError(
            f"not all machines came to {meeting} within JOIN_SECONDS (600 unless set); does launch.sh run on all, with "
            "the same NODES, MASTER_ADDR and MASTER_PORT, and no firewall between them?"
        ) from error
    return 0


@contextmanager
def quiet_torch() -> Iterator[None]:
    """Import torch in the block without its C++ warnings, such as those about host names that cannot be resolved.

    torch reads its log level once, when it is imported. The launched programs get the level that the user has set, or
    else ERROR.
    """
    level = os.environ.get(TORCH_LOG_LEVEL, "ERROR")
    os.environ[TORCH_LOG_LEVEL] = "FATAL"
    try:
        yield
    finally:
        os.environ[TORCH_LOG_LEVEL] = level


def _parsed(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the arguments of `accelerate launch`, and turn off torchrun's own reports and signal handlers."""
    from accelerate.commands.launch import launch_command_parser

    elastic = logging.getLogger("torch.distributed.elastic")  # the program has printed its error
    elastic.addHandler(logging.NullHandler())
    elastic.propagate = False
    arguments: argparse.Namespace = launch_command_parser().parse_args(argv)
    arguments.quiet = False  # quiet returns exit code 1 for every error
    # torchrun would handle the signals that SignalForwarder passes on: it gives the programs 30 seconds, forgets their
    # exit codes, and leaves them alone on SIGUSR1. Its option needs at least one signal.
    arguments.signals_to_handle = "SIGQUIT"
    return arguments


def use_interface_to(host: str) -> None:
    """Make gloo use the network interface that reaches a host, unless GLOO_SOCKET_IFNAME is set.

    By default gloo uses the address of the machine's own name. It is often 127.0.1.1, which no other machine can reach.
    Raises UsageError if there is no route to the host.
    """
    try:
        own = _address_towards(host)
    except OSError as error:
        raise UsageError(f"MASTER_ADDR={host}: cannot be reached from this machine ({error.strerror})") from error
    if ip_address(own).is_loopback and host not in ("localhost", own):  # the own name, as in Debian's /etc/hosts
        try:
            own = _address_towards(ANYWHERE)
        except OSError:
            return  # no network at all
    for name, addresses in psutil.net_if_addrs().items():
        if own in (item.address for item in addresses):
            os.environ.setdefault("GLOO_SOCKET_IFNAME", name)


def _address_towards(host: str) -> str:
    """Return this machine's address on the route to a host. No packet is sent, because UDP only looks up the route."""
    family, kind, _, _, address = socket.getaddrinfo(host, 9, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, kind) as route:
        route.connect(address)
        return str(route.getsockname()[0])


def codes_of(failures: Collection[Any]) -> Iterator[int]:
    """Yield the exit codes of failed processes, each a ProcessFailure of torch; -n stands for signal n.

    A process that hung counts as a bug. After the first failure torchrun ends the others by SIGTERM, and kills after
    `SHUTDOWN_SECONDS` those that hang. So their SIGKILL is no sign of missing memory.
    """
    first = min(failure.timestamp for failure in failures)
    for failure in failures:
        is_late = failure.timestamp - first >= SHUTDOWN_SECONDS - 2  # timestamps are whole seconds
        yield BUG if is_late and failure.exitcode == -signal.SIGKILL else failure.exitcode


def most_telling(codes: Iterable[int]) -> int:
    """Return the exit code, among those of several processes, that best explains why they ended.

    A code of -n stands for signal n; at least one code is needed. A failed process makes the others fail, too, but with
    less specific codes. So the choice is, in this order: a signal other than SIGTERM, a code other than 1, the code 1,
    SIGTERM, by which torchrun ends the others.
    """
    return min(codes, key=lambda code: (code >= 0 or code == -signal.SIGTERM, code == -signal.SIGTERM, code == 1))
