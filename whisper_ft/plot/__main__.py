"""Draw the curves of runs, also while they train: `python -m whisper_ft.plot RUN [RUN ...] [--out DIR]`."""

import sys
from collections.abc import Sequence

from whisper_ft.failure import exit_code_of


def main(argv: Sequence[str] | None = None) -> int:
    """Write curves.png and curves.html. Exit codes as those of a run; 130 after Ctrl-C."""

    def program() -> None:
        from whisper_ft.plot.command import plot  # brings matplotlib, for a second in which people press Ctrl-C

        plot(sys.argv[1:] if argv is None else argv)

    return exit_code_of(program)


if __name__ == "__main__":
    sys.exit(main())
