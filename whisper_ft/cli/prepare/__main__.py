"""Convert any source to parquet shards: `python -m whisper_ft prepare --data.path FILE_OR_DIR --out DIR`.

The shards hold the usable rows of the source in the same order. After a stop, the same command continues; the finished
files are then byte for byte those of an uninterrupted conversion.
"""

import sys
from collections.abc import Sequence

from whisper_ft.cli.prepare.prepare_config import PrepareConfig
from whisper_ft.config.parse import load_config
from whisper_ft.runtime.command import exit_code_of
from whisper_ft.runtime.exit_codes import PREEMPTED
from whisper_ft.runtime.printable import say

STOPPED = "stopped; the same command resumes after the last complete shard"


def main(argv: Sequence[str] | None = None) -> int:
    """Convert the source that the command line names. Returns a code of `runtime.exit_codes`; 75 after Ctrl-C."""

    def program() -> None:
        settings = load_config(PrepareConfig, argv, "python -m whisper_ft prepare")
        from whisper_ft.cli.prepare.conversion import prepare

        say(prepare(settings))

    return exit_code_of(program, STOPPED, PREEMPTED)


if __name__ == "__main__":
    sys.exit(main())
