"""Merge an adapter into its base, checked: `python -m whisper_ft merge RUN|ADAPTER --out DIR`."""

import sys
from collections.abc import Sequence

from whisper_ft.cli.merge.merge_arguments import parse_arguments
from whisper_ft.runtime.command import exit_code_of


def main(argv: Sequence[str] | None = None) -> int:
    """Merge an adapter and check the result. Returns a code of `runtime.exit_codes`.

    It is 8 if the error rate of the merged model is above that of the adapter by more than --max_wer_rise.
    """

    def program() -> None:
        arguments = parse_arguments(sys.argv[1:] if argv is None else argv)
        from normalizers import get_normalizer
        from whisper_ft.cli.merge.merger import merge  # imports torch, which takes seconds

        merge(arguments, get_normalizer)

    return exit_code_of(program)


if __name__ == "__main__":
    sys.exit(main())
