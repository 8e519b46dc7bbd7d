"""Label audio without text, as training data: `python -m whisper_ft pseudolabel MODEL --data.path DATA --out DIR`.

After a stop, the same command continues; the finished files are then byte for byte those of an uninterrupted labelling.
`NPROC=2 ./launch.sh pseudolabel ...` shares the work between processes.
"""

import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from whisper_ft.cli.pseudolabel.labelling_arguments import parse_arguments
from whisper_ft.runtime.errors import RunError
from whisper_ft.runtime.exit import exit_process, report_error
from whisper_ft.runtime.exit_codes import BUG, FINISHED, INTERRUPTED
from whisper_ft.runtime.printable import say


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Label the audio of the command line, and exit with a code of `runtime.exit_codes`; 4 if no window is kept."""
    code = FINISHED
    try:
        _label(sys.argv[1:] if argv is None else argv)
    except KeyboardInterrupt:
        code = INTERRUPTED
        report_error(RunError("stopped; the same command continues"), None)
    except Exception as error:  # noqa: BLE001 - anything but a RunError is a bug of this program, and shown in full
        code = error.exit_code if isinstance(error, RunError) else BUG
        report_error(error, None)
    exit_process(code)


def _label(argv: Sequence[str]) -> None:
    """Check the arguments, and then label. torch is imported once the arguments are valid."""
    config = parse_arguments(argv)
    from normalizers import get_normalizer
    from whisper_ft.cli.pseudolabel.labelling_check import refuse_impossible_labelling

    lines = refuse_impossible_labelling(config)
    if os.environ.get("RANK", "0") == "0":
        say(*lines, file=sys.stderr)
    from whisper_ft.cli.pseudolabel.labelling_session import pseudolabel

    pseudolabel(config, get_normalizer)


if __name__ == "__main__":
    main()
