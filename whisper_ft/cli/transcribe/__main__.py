"""Transcribe audio and video files with a model: `python -m whisper_ft transcribe MODEL FILE ... [--to txt,srt]`."""

import argparse
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from whisper_ft.cli.transcribe.transcribe_arguments import parse_arguments
from whisper_ft.runtime.exit import exit_after
from whisper_ft.runtime.printable import say


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Transcribe the files of the command line, and exit with a code of `runtime.exit_codes`.

    The code is 4 if a file could not be read, or not to its end.
    """
    exit_after(lambda: transcribe(parse_arguments(sys.argv[1:] if argv is None else argv)))


def transcribe(args: argparse.Namespace) -> None:
    """Check the arguments, and then transcribe.

    torch is imported here, because it takes seconds that --help and a wrong argument need not wait for.
    """
    from whisper_ft.cli.transcribe.transcribe_check import checked_files

    files, lines = checked_files(args)
    if os.environ.get("RANK", "0") == "0":
        say(*lines, file=sys.stderr)
    from whisper_ft.cli.transcribe import session

    session.transcribe(args, files)


if __name__ == "__main__":
    main()
