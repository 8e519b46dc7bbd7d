"""Mix a model with its start and choose the best mixture: `python -m whisper_ft interpolate RUN --out DIR`."""

import sys
from collections.abc import Sequence

from whisper_ft.cli.interpolate.interpolate_config import parse_arguments
from whisper_ft.runtime.command import exit_code_of

STOPPED = "stopped; the same command continues"


def main(argv: Sequence[str] | None = None) -> int:
    """Score the mixtures and write the best one. Returns a code of `runtime.exit_codes`."""

    def program() -> None:
        config, given = parse_arguments(sys.argv[1:] if argv is None else argv)
        from normalizers import get_normalizer
        from whisper_ft.cli.interpolate.interpolator import interpolate_models  # imports torch, which takes seconds

        interpolate_models(config, given, get_normalizer)

    return exit_code_of(program, STOPPED)


if __name__ == "__main__":
    sys.exit(main())
