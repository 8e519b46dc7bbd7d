"""Error report and exit of a program, which may be one of several processes. torch is not imported."""

import os
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, NoReturn

from whisper_ft.runtime.errors import LostRankError, RunError
from whisper_ft.runtime.exit_codes import BUG, FINISHED, INTERRUPTED, PREEMPTED
from whisper_ft.runtime.printable import say

if TYPE_CHECKING:
    from whisper_ft.runtime.collectives import Collectives

MAIN_PROCESS_SECONDS = 2.0  # time for rank 0 to print its message and write its status before another rank exits


def report_error(error: Exception, ranks: "Collectives | None") -> None:
    """Print to standard error why a program ends: one line for a RunError, the traceback for a bug.

    The line is printed once, by rank 0. If the ranks are not connected yet (`ranks` is None), or if a rank is lost, it
    is printed once on each machine. A traceback is printed on every rank.
    """
    if ranks is None or isinstance(error, LostRankError):
        rank = int(os.environ.get("LOCAL_RANK", "0"))
    else:
        rank = ranks.rank
    with suppress(OSError):  # the reader of the pipe has ended, as in `| head`
        if not isinstance(error, RunError):
            say(*"".join(traceback.format_exception(error)).splitlines(), file=sys.stderr)
        elif rank == 0:
            say(f"error: {error}", file=sys.stderr)


def exit_after(work: Callable[[], None]) -> NoReturn:
    """Do work that the same command continues after a stop, and exit with a code of `runtime.exit_codes`."""
    code = FINISHED
    try:
        work()
    except KeyboardInterrupt:
        code = INTERRUPTED
        report_error(RunError("stopped; the same command continues"), None)
    except Exception as error:  # noqa: BLE001 - anything but a RunError is a bug of this program, and shown in full
        code = error.exit_code if isinstance(error, RunError) else BUG
        report_error(error, None)
    exit_process(code)


def exit_process(code: int, last: Callable[[], None] = lambda: None) -> NoReturn:
    """Exit with a code. If a run has several processes, this one does not wait for the others, which may be gone.

    Destroying a process group would wait for the other ranks. The launcher ends all ranks once one has exited with an
    error. So after an error, ranks other than 0 first wait a moment, in which rank 0 reports the error. Then they call
    `last`, which no other exit calls.
    """
    for stream in filter(None, (sys.stdout, sys.stderr)):  # None: closed before the program began
        try:
            stream.flush()
        except OSError:  # the interpreter would flush again at its end, fail, and exit with code 120
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        sys.exit(code)
    if os.environ.get("RANK", "0") != "0" and code not in (FINISHED, PREEMPTED):
        time.sleep(MAIN_PROCESS_SECONDS)
        last()
    os._exit(code)
