"""Make the demo's corpus and model: `python -m whisper_ft.demo --out demo-data`."""

from pathlib import Path

from whisper_ft.cli.demo.corpus import write_corpus
from whisper_ft.cli.demo.model import Shape, write_micro_whisper
from whisper_ft.cli.demo.sentences import LANGUAGES
from whisper_ft.runtime.command import DemoParser, announce, run


def main() -> None:
    """Write what is not there yet, and say where it is."""
    parser = DemoParser("whisper_ft.demo", "Make a spoken corpus and an untrained micro Whisper to learn it.")
    parser.add_out("folder to write (default demo-data)", default=Path("demo-data"))
    parser.add_argument("--language", choices=LANGUAGES, default="be", help="what is spoken (default be)")
    parser.add_splits()
    args = parser.parse_args()
    corpus = args.out / args.language
    model = args.out / ("micro-whisper" if args.language == "be" else f"micro-whisper-{args.language}")
    announce("corpus", corpus, write_corpus(corpus, args.language, args.train, args.validation, args.test))
    announce("model", model, write_micro_whisper(model, Shape(args.language)))


if __name__ == "__main__":
    run(main)
