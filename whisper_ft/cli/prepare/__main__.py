"""Convert any source to parquet shards: `python -m whisper_ft prepare --data.path FILE_OR_DIR --out DIR`.

The result is a source with the same rows in the same order. The same command resumes after a stop; the finished files
are then byte for byte those of an uninterrupted conversion.
"""

import sys
from collections.abc import Sequence

from whisper_ft.cli.prepare.prepare_config import PrepareConfig
from whisper_ft.config.parse import load_config
from whisper_ft.runtime.command import exit_code_of
from whisper_ft.runtime.exit_codes import PREEMPTED

STOPPED = "stopped; the same command resumes after the last complete shard"


def main(argv: Sequence[str] | None = None) -> int:
    """Convert as the command line says. Returns the exit code of `runtime.errors`; 75 after Ctrl-C."""

    def program() -> None:
        settings = load_config(PrepareConfig, argv, "python -m whisper_ft prepare")
        from whisper_ft.cli.prepare.conversion import prepare

        print(prepare(settings))

    return exit_code_of(program, STOPPED, PREEMPTED)


if __name__ == "__main__":
    sys.exit(main())
