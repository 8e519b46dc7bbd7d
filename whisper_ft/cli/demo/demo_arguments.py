"""Arguments and messages that the programs of the demo share."""

import argparse
from collections.abc import Callable
from pathlib import Path

from whisper_ft.runtime.command import Parser, exit_code_of
from whisper_ft.runtime.errors import UsageError
from whisper_ft.runtime.printable import say


def add_out(parser: Parser, help: str, default: Path | None = None) -> None:
    """Add --out, the folder to write. It is required if there is no default."""
    parser.add_argument("--out", type=Path, default=default, required=default is None, metavar="DIR", help=help)


def add_count(parser: Parser, flag: str, default: int, help: str, least: int = 1) -> None:
    """Add an argument that is a whole number from `least` up."""

    def count(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"expected a whole number from {least} up, got {text!r}")
        return int(text)

    parser.add_argument(flag, type=count, default=default, metavar="N", help=f"{help} (default {default})")


def add_splits(parser: Parser) -> None:
    """Add --train, --validation and --test: the number of utterances of each split of a corpus."""
    add_count(parser, "--train", 1_000, "training utterances")
    add_count(parser, "--validation", 100, "validation utterances")
    add_count(parser, "--test", 200, "test utterances")


def exit_code_of_demo(program: Callable[[], None]) -> int:
    """Run a program of the demo and return its exit code.

    A ValueError, a missing package or an OSError is printed as one line, with code 2.
    """

    def with_usage_errors() -> None:
        try:
            program()
        except BrokenPipeError:
            raise
        except (ValueError, ModuleNotFoundError, OSError) as error:
            raise UsageError(str(error)) from error

    return exit_code_of(with_usage_errors)


def announce(name: str, folder: Path, written: bool) -> None:
    """Print the folder of a result, and a note if an earlier start had already made it."""
    say(f"{name}: {folder}" + ("" if written else " (was there already)"))
