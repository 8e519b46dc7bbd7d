"""Entry point of every command: `python -m whisper_ft COMMAND`, or `whisper-ft COMMAND` once it is installed."""

import argparse
import difflib
import sys
from collections.abc import Sequence
from importlib import import_module

from whisper_ft import COMMANDS, OTHER_MODULES
from whisper_ft.runtime.command import Parser, exit_code_of
from whisper_ft.runtime.errors import UsageError, as_missing_package, one_line
from whisper_ft.runtime.exit import report_error


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code, which is 2 for an unknown command.

    Only the module of the chosen command is imported, so the libraries of other commands cost no time.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    if argv and argv[0] in COMMANDS:
        try:
            module = import_module(f"whisper_ft.cli.{OTHER_MODULES.get(argv[0], argv[0])}")
            if hasattr(module, "__path__"):
                module = import_module(f"{module.__name__}.__main__")
        except ModuleNotFoundError as error:
            report_error(as_missing_package(error), None)
            return UsageError.exit_code
        return int(module.main(argv[1:]))
    return exit_code_of(lambda: _answer(argv))


def _answer(argv: list[str]) -> None:
    """Print the help. Raises UsageError if the command is missing or unknown."""
    names = ", ".join(COMMANDS)
    if not argv:
        raise UsageError(f"a command is missing; give one of {names}, or --help")
    if not argv[0].startswith("-"):
        near = difflib.get_close_matches(argv[0], COMMANDS, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"the commands are {names}"
        raise UsageError(f"unknown command {one_line(repr(argv[0]))}; {hint}")
    width = max(map(len, COMMANDS))
    lines = "\n".join(f"  {name:<{width}}  {line}" for name, line in COMMANDS.items())
    parser = Parser(
        prog="python -m whisper_ft",
        usage="%(prog)s COMMAND [ARGUMENTS]",
        description=f"Commands:\n{lines}\n\n`%(prog)s COMMAND --help` describes the arguments of a command.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
