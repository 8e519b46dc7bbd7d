"""Look through the data before any GPU time: `python -m whisper_ft doctor --config FILE [settings as for train.py]`."""

import sys
from collections.abc import Sequence

from whisper_ft.cli.doctor.doctor_arguments import arguments_of
from whisper_ft.runtime.command import exit_code_of


def main(argv: Sequence[str] | None = None) -> int:
    """Print what was found. Exit codes as those of a run; 4 also for findings, with --fail; 130 after Ctrl-C."""

    def program() -> None:
        own, config = arguments_of(sys.argv[1:] if argv is None else argv)
        # Imported here because these bring torch: seconds in which people press Ctrl-C.
        from normalizers import get_normalizer
        from whisper_ft.cli.doctor.command import main_check

        main_check(own, config, get_normalizer)

    return exit_code_of(program)


if __name__ == "__main__":
    sys.exit(main())
