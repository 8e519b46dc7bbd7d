"""Frame of a small command: argument parser, exit code, one line for each error."""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from whisper_ft.runtime.errors import FINISHED, INTERRUPTED, RunError, UsageError, one_line


class Parser(argparse.ArgumentParser):
    """An argument parser that complains in one line, as the rest of the project does."""

    def error(self, message: str) -> NoReturn:
        """UsageError; `--help` has the rest."""
        raise UsageError(one_line(message))


def exit_code_of(program: Callable[[], None], stopped: str = "stopped", code: int = INTERRUPTED) -> int:
    """Run a small program: 0, or the code of a RunError, whose line is printed. It prints to standard output.

    `stopped` is what to say of Ctrl-C, and `code` what to end with then.
    """
    try:
        program()
        sys.stdout.flush()
    except BrokenPipeError:  # `| head` has what it wanted; the interpreter would complain once more when it ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        print(stopped, file=sys.stderr)
        return code
    except RunError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return FINISHED


USAGE_ERROR = 2


class DemoParser(argparse.ArgumentParser):
    """An argument parser that complains in one line; `--help` has the rest."""

    def __init__(self, program: str, description: str) -> None:
        super().__init__(prog=f"python -m {program}", description=description, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        """Say what is wrong and leave."""
        _refuse(message)

    def add_out(self, help: str, default: Path | None = None) -> None:
        """The folder to write."""
        self.add_argument("--out", type=Path, default=default, required=default is None, metavar="DIR", help=help)

    def add_count(self, flag: str, default: int, help: str, least: int = 1) -> None:
        """A whole number from `least` up."""

        def count(text: str) -> int:
            if not text.isdecimal() or int(text) < least:
                raise argparse.ArgumentTypeError(f"a whole number from {least} up is needed, got {text!r}")
            return int(text)

        self.add_argument(flag, type=count, default=default, metavar="N", help=f"{help} (default {default})")

    def add_splits(self) -> None:
        """How many utterances each split of a corpus has."""
        self.add_count("--train", 1_000, "training utterances")
        self.add_count("--validation", 100, "validation utterances")
        self.add_count("--test", 200, "test utterances")


def run(program: Callable[[], None]) -> None:
    """Run the program; errors that the user can mend end it with one line."""
    try:
        program()
    except (ValueError, ModuleNotFoundError, OSError) as error:
        _refuse(str(error))


def announce(what: str, folder: Path, written: bool) -> None:
    """Say where it is."""
    print(f"{what}: {folder}" + ("" if written else " (was there already)"))


def _refuse(message: str) -> NoReturn:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(USAGE_ERROR)
