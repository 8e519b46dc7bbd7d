"""Make the demo's corpus and model: `python -m whisper_ft demo --out demo-data`."""

import sys
from collections.abc import Sequence
from pathlib import Path

from whisper_ft.cli.demo.demo_arguments import add_out, add_splits, announce, exit_code_of_demo
from whisper_ft.cli.demo.sentences import LANGUAGES
from whisper_ft.runtime.command import Parser


def main(argv: Sequence[str] | None = None) -> int:
    """Write the corpus and the model unless they exist, and print their folders. Returns 2 for a usage error."""

    def program() -> None:
        parser = Parser(
            prog="python -m whisper_ft demo",
            description="Make a spoken corpus and an untrained micro Whisper to train on it.",
        )
        add_out(parser, "folder to write (default demo-data)", default=Path("demo-data"))
        parser.add_argument("--language", choices=LANGUAGES, default="be", help="language of the speech (default be)")
        add_splits(parser)
        args = parser.parse_args(argv)

        from whisper_ft.cli.demo.corpus import write_corpus
        from whisper_ft.cli.demo.model import Shape, write_micro_whisper

        corpus = args.out / args.language
        model = args.out / ("micro-whisper" if args.language == "be" else f"micro-whisper-{args.language}")
        announce("corpus", corpus, write_corpus(corpus, args.language, args.train, args.validation, args.test))
        announce("model", model, write_micro_whisper(model, Shape(args.language)))

    return exit_code_of_demo(program)


if __name__ == "__main__":
    sys.exit(main())
