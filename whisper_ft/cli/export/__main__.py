"""Export a model to another format, checked: `python -m whisper_ft export RUN|MODEL --to FORMAT --out DIR`."""

import sys
from collections.abc import Sequence
from pathlib import Path

from whisper_ft.cli.export.export_arguments import parse_arguments
from whisper_ft.cli.export.export_record import RECORD, changed_files, read_record
from whisper_ft.runtime.command import exit_code_of
from whisper_ft.runtime.errors import CheckError
from whisper_ft.runtime.printable import counted, say


def main(argv: Sequence[str] | None = None) -> int:
    """Export and check a model, or verify an export. Returns a code of `runtime.exit_codes`.

    It is 8 if the check fails, or if a file of a verified export has changed.
    """

    def program() -> None:
        arguments = parse_arguments(sys.argv[1:] if argv is None else argv)
        if isinstance(arguments, Path):
            verify(arguments)
            return
        from normalizers import get_normalizer
        from whisper_ft.cli.export.exporter import export  # imports torch, which takes seconds

        export(arguments, get_normalizer)

    return exit_code_of(program)


def verify(folder: Path) -> None:
    """Compare each file of an export with its record. Raises CheckError if one has changed."""
    if changed := changed_files(folder):
        say(*changed)
        raise CheckError(f"{folder}: {counted(len(changed), 'file')} not as written; export the model again")
    say(f"{folder}: {counted(len(read_record(folder)['files']), 'file')} as in {RECORD}")


if __name__ == "__main__":
    sys.exit(main())
