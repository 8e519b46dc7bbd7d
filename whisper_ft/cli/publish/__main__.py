"""Put a model of a run on the Hub: `python -m whisper_ft publish RUN --repo NAME [--public] [--yes]`."""

import sys
from collections.abc import Sequence

from whisper_ft.cli.publish.publish_arguments import arguments_of
from whisper_ft.runtime.command import exit_code_of


def main(argv: Sequence[str] | None = None) -> int:
    """Show what would be uploaded, and upload it. Exit codes as those of a run; 75 where trying again may help."""

    def program() -> None:
        args = arguments_of(sys.argv[1:] if argv is None else argv)
        from whisper_ft.cli.publish.command import publish

        publish(args)

    return exit_code_of(program)


if __name__ == "__main__":
    sys.exit(main())
