"""`python -m whisper_ft.prepare`: any source as parquet shards.

The result is a source like any other: the same rows in the same order. The same command goes on after a stop, and what
it then leaves is, byte for byte, what it would have left without one.
"""

import sys

from whisper_ft.runtime.command import exit_code_of
from whisper_ft.runtime.errors import PREEMPTED

STOPPED = "stopped; the same command goes on after the last whole shard"


def main() -> int:
    """Prepare as the command line says; one line and the exit code of failure.py for what cannot be, 75 for Ctrl-C."""

    def program() -> None:
        from whisper_ft.cli.prepare.command import convert

        convert()

    return exit_code_of(program, STOPPED, PREEMPTED)


if __name__ == "__main__":
    sys.exit(main())
