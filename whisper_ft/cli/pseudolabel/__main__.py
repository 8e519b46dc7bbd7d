"""Label audio without text, as training data: `python -m whisper_ft pseudolabel MODEL --data.path DATA --out DIR`.

After a stop, the same command continues; the finished files are then byte for byte those of an uninterrupted labelling.
`NPROC=2 ./launch.sh pseudolabel ...` shares the work between processes.
"""

import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from whisper_ft.cli.pseudolabel.labelling_arguments import parse_arguments
from whisper_ft.runtime.exit import exit_after
from whisper_ft.runtime.printable import say


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Label the audio of the command line, and exit with a code of `runtime.exit_codes`; 4 if no window is kept."""
    exit_after(lambda: _label(sys.argv[1:] if argv is None else argv))


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
