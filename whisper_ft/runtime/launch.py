"""`accelerate launch` with signals and exit codes passed on: `python -m whisper_ft.runtime.launch train.py`.

The arguments and what is done with them are accelerate's own. By itself it leaves a single program running on alone
when it gets a SIGTERM, shows tracebacks of its own on Ctrl-C, makes every exit code 1, and stops for no SIGUSR1.
"""

import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterable, Sequence
from ipaddress import ip_address
from types import FrameType

import psutil  # type: ignore[import-untyped]

from whisper_ft.runtime.errors import LostRankError, RunError, UsageError
from whisper_ft.runtime.processes import LAUNCHER
from whisper_ft.runtime.signals import STOP_SIGNALS

TORCH_LOG_LEVEL = "TORCH_CPP_LOG_LEVEL"
ANYWHERE = "192.0.2.1"  # of nobody (RFC 5737): the way to it is the default route


class SignalForwarder:
    """Passes signals for the launcher on to the programs it started; the launcher itself waits for them to end.

    They all get SIGTERM, the request to save and stop that every program knows. One more Ctrl-C is passed on as it is,
    and ends them. A terminal sends a Ctrl-C to a single program too, for which one more SIGTERM changes nothing;
    programs of torchrun have a session of their own, which the terminal does not reach.
    """

    def __init__(self) -> None:
        self.passed_on: set[int] = set()

    def listen(self) -> None:
        """Take over the signals that mean stop, unless they are ignored, as SIGHUP is under nohup."""
        for number in STOP_SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._pass_on)

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        programs = psutil.Process().children()
        if not programs and not self.passed_on:  # none is started yet
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        is_again = number == signal.SIGINT and number in self.passed_on
        self.passed_on.add(number)
        for program in programs:
            try:
                program.send_signal(signal.SIGINT if is_again else signal.SIGTERM)
            except psutil.NoSuchProcess:
                continue


def launch(argv: Sequence[str]) -> int:
    """Run `accelerate launch` and give the exit code of its program: of several the most telling one; -n: signal n.

    Raises UsageError where several machines cannot meet as they are told to, LostRankError where one does not come.
    """
    level = os.environ.get(TORCH_LOG_LEVEL, "ERROR")  # for the programs: no warnings of name servers that know no names
    os.environ[TORCH_LOG_LEVEL] = "FATAL"  # read once, at the import: what goes wrong here is told in one line
    from accelerate.commands.launch import launch_command, launch_command_parser
    from torch.distributed import DistError
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    os.environ[TORCH_LOG_LEVEL] = level
    # The program has said what is wrong.
    elastic = logging.getLogger("torch.distributed.elastic")
    elastic.addHandler(logging.NullHandler())
    elastic.propagate = False
    arguments = launch_command_parser().parse_args(argv)
    arguments.quiet = False  # quiet is exit code 1 for everything
    # An option of torchrun's, which else takes over the signals that Relay passes on: it would give the programs 30
    # seconds, forget their exit codes, and leave them alone on SIGUSR1. It wants one.
    arguments.signals_to_handle = "SIGQUIT"
    meeting = f"{arguments.main_process_ip}:{arguments.main_process_port}"
    if arguments.main_process_ip:
        use_interface_to(arguments.main_process_ip)
    try:
        launch_command(arguments)
    except subprocess.CalledProcessError as error:
        return error.returncode
    except ChildFailedError as error:
        return _telling(failure.exitcode for failure in error.failures.values())
    except SignalException as error:
        return -error.sigval
    except ConnectionError as error:  # accelerate's word for a port that is taken
        raise UsageError(f"MASTER_PORT: {meeting} is in use here; take another, the same on all machines") from error
    except DistError as error:
        raise LostRankError(
            f"not all machines came to {meeting} within JOIN_SECONDS (600 unless set); does launch.sh run on all, with "
            "the same NODES, MASTER_ADDR and MASTER_PORT, and no firewall between them?"
        ) from error
    return 0


def use_interface_to(host: str) -> None:
    """Have gloo speak through the network interface that reaches a host, unless GLOO_SOCKET_IFNAME says another.

    By itself gloo takes the address that the own name stands for, often 127.0.1.1, where no other machine finds it.
    """
    try:
        own = _address_towards(host)
    except OSError as error:
        raise UsageError(f"MASTER_ADDR={host}: cannot be reached from this machine ({error.strerror})") from error
    if ip_address(own).is_loopback and host not in ("localhost", own):  # its own name, as /etc/hosts of Debian has it
        try:
            own = _address_towards(ANYWHERE)
        except OSError:
            return  # no network at all
    for name, addresses in psutil.net_if_addrs().items():
        if own in (one.address for one in addresses):
            os.environ.setdefault("GLOO_SOCKET_IFNAME", name)


def _address_towards(host: str) -> str:
    """The own address on the way to a host. Nothing is sent: a socket is asked for its route."""
    family, kind, _, _, address = socket.getaddrinfo(host, 9, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, kind) as way:
        way.connect(address)
        return str(way.getsockname()[0])


def _telling(codes: Iterable[int]) -> int:
    """Of the exit codes of several processes the one that says most: one that was killed takes the others down."""
    by_kind = sorted(codes, key=lambda code: (code >= 0 or code == -signal.SIGTERM, code == 1, code == -signal.SIGTERM))
    return by_kind[0]


def main(argv: Sequence[str]) -> int:
    """Launch, and return the exit code as a shell has it: 128 + n for a program that signal n ended."""
    relay = SignalForwarder()
    relay.listen()
    os.environ[LAUNCHER] = str(os.getpid())
    try:
        code = launch(argv)
    except RunError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    if code < 0 and not relay.passed_on:  # the program could not say so
        why = ": did memory run out?" if -code == signal.SIGKILL else ""
        print(f"error: a process was ended by {signal.Signals(-code).name}{why}", file=sys.stderr)
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
