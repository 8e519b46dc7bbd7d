"""Frame of a small command: an argument parser, and a function that turns errors into one line and an exit code."""

import argparse
import difflib
import os
import re
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from whisper_ft.runtime.errors import RunError, UsageError, one_line
from whisper_ft.runtime.exit_codes import FINISHED, INTERRUPTED
from whisper_ft.runtime.printable import say


class Parser(argparse.ArgumentParser):
    """Argument parser that takes no abbreviated names, and raises UsageError for wrong arguments instead of exiting."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"allow_abbrev": False} | options)

    def error(self, message: str) -> NoReturn:
        """Raise UsageError with the message alone; argparse would also print the usage, which --help shows.

        An unknown option is answered with the nearest one.
        """
        unknown = re.match(r"unrecognized arguments:.*?(--[\w-]+)", message, re.DOTALL)
        near = difflib.get_close_matches(unknown[1], self._option_string_actions, n=1) if unknown else []
        raise UsageError(one_line(message) + (f"; did you mean {near[0]}?" if near else ""))


def exit_code_of(program: Callable[[], None], interrupted: str = "stopped", interrupted_code: int = INTERRUPTED) -> int:
    """Run a small program and return its exit code: 0, or the code of the RunError that it raised.

    A RunError is printed as one line. After Ctrl-C, `interrupted` is printed and `interrupted_code` is returned. The
    code is also 0 if the reader of standard output has ended, as in `| head`. Any other exception passes through.
    """
    try:
        program()
        sys.stdout.flush()
    except BrokenPipeError:  # the reader has ended, as in `| head`; the interpreter would report it again at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        say(interrupted, file=sys.stderr)
        return interrupted_code
    except RunError as error:
        say(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return FINISHED
