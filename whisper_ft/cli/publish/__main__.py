"""Upload a model of a run to the Hub: `python -m whisper_ft publish RUN --repo NAME [--public] [--yes]`."""

import argparse
import sys
from collections.abc import Sequence

from whisper_ft.cli.publish.publish_arguments import parse_arguments
from whisper_ft.runtime.command import exit_code_of
from whisper_ft.runtime.errors import UsageError
from whisper_ft.runtime.printable import say


def main(argv: Sequence[str] | None = None) -> int:
    """Show a preview, then upload. Returns a code of `runtime.exit_codes`; 75 if a later attempt may succeed."""
    return exit_code_of(lambda: publish(parse_arguments(sys.argv[1:] if argv is None else argv)))


def publish(args: argparse.Namespace) -> None:
    """Show a preview, and upload the model once the user has confirmed. With --write_card, only write the card.

    Raises UsageError if the upload cannot work, HubError if the Hub cannot be reached, and DiskError if a file cannot
    be written.

    torch is imported here, because it takes seconds that --help and a wrong argument need not wait for.
    """
    from whisper_ft.cli.publish.adapter_base import files_naming_base
    from whisper_ft.cli.publish.bundle import bundled, file_sizes
    from whisper_ft.cli.publish.card import CURVES, README, read_card, render_card
    from whisper_ft.cli.publish.preview import collect, local_paths, preview_lines
    from whisper_ft.cli.publish.upload import token_of_environment, upload
    from whisper_ft.runtime import atomic

    publication, curves = collect(args)
    card = render_card(publication) if args.card is None else read_card(args.card)
    if args.write_card:
        atomic.write_text(args.write_card, str(card))
        say(f"written: {args.write_card}; nothing was uploaded")
        return
    generated = {README: str(card).encode(), CURVES: curves}
    generated |= files_naming_base(publication.model, publication.base_model)
    with bundled(publication.model, generated, secrets=local_paths(args.run, publication.config)) as folder:
        say(*preview_lines(args, publication, file_sizes(folder)))
        token = token_of_environment()
        if not args.yes and not _is_confirmed():
            say("nothing was uploaded")
            return
        message = f"{publication.model.what} of a run of whisper-ft: {publication.model.origin}"
        address = upload(folder, args.repo, args.public, message, token, say)
    say(f"uploaded: {address}")


def _is_confirmed() -> bool:
    if not sys.stdin.isatty():
        raise UsageError("nothing was uploaded, because there is no terminal to confirm at; confirm with --yes")
    return input("upload? [y/N] ").strip().lower() in ("y", "yes")


if __name__ == "__main__":
    sys.exit(main())
