"""Command line of transcribe. torch is not imported, so that --help and errors are quick."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from whisper_ft.config.evaluation import Device, Precision
from whisper_ft.runtime.command import Parser
from whisper_ft.runtime.errors import UsageError, one_line

FORMATS = ("txt", "srt", "vtt", "json", "tsv")
DEFAULT_FORMATS = ("txt",)
WITH_WORDS = ("srt", "vtt", "json")
"""Formats that hold the times of words, or cut subtitles by them."""


def parse_arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the command line. Raises UsageError for arguments that cannot work."""
    parser = Parser(
        prog="python -m whisper_ft transcribe",
        description="Transcribe audio and video files into texts and subtitles. An interrupted transcription continues "
        "with the same command, and `NPROC=2 ./launch.sh transcribe ...` shares the files between processes.",
    )
    parser.add_argument(
        "model", metavar="MODEL",
        help="run directory (its best model, else its final one), folder of a model or an adapter, or name on the Hub",
    )  # fmt: skip
    parser.add_argument("--base", metavar="MODEL", help="base of the adapter in MODEL (the one that its files name)")
    parser.add_argument(
        "files", nargs="+", metavar="FILE", help="audio or video file, folder (searched for such files), or glob"
    )
    parser.add_argument(
        "--to", type=_formats, default=DEFAULT_FORMATS, metavar="LIST",
        help=f"formats to write, with commas between them: {', '.join(FORMATS)} ({','.join(DEFAULT_FORMATS)})",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for the transcripts (beside each file)")
    parser.add_argument("--overwrite", action="store_true", help="replace transcripts that exist; else they are kept")
    _add_decoding(parser)
    args = parser.parse_intermixed_args(argv)  # files may also follow the options
    if args.out is not None and args.out.exists() and not args.out.is_dir():
        raise UsageError(f"--out {args.out}: is a file; name a folder")
    if args.words and not {*args.to} & {*WITH_WORDS}:
        raise UsageError(f"--words: has no effect without one of {', '.join(WITH_WORDS)} in --to, which hold the times")
    return args


def _add_decoding(parser: Parser) -> None:
    parser.add_argument(
        "--language", metavar="X", help="language that is spoken: code or name; auto to detect it (that of the model)"
    )
    parser.add_argument("--task", choices=("transcribe", "translate"), default="transcribe", help="(%(default)s)")
    parser.add_argument(
        "--timestamps", action="store_true", help="let the model write the time of each phrase, which it may have lost"
    )
    parser.add_argument("--words", action="store_true", help="also find the time of each word, by cross-attention")
    parser.add_argument("--prompt", default="", metavar="TEXT", help="names and spellings that the model does not know")
    parser.add_argument("--num_beams", type=_count, default=1, metavar="N", help="beams of the search (1, greedy)")
    parser.add_argument("--max_new_tokens", type=_count, metavar="N", help="most tokens for one window (no limit)")
    parser.add_argument(
        "--no_speech_threshold", type=_share, metavar="P",
        help="leave windows out whose probability of no speech is above this: 0.6 in openai-whisper (never)",
    )  # fmt: skip
    parser.add_argument(
        "--temperature_fallback", action="store_true", help="decode a window that loops again, with random choices"
    )
    parser.add_argument("--batch_size", type=_count, metavar="N", help="windows at a time (16 on a GPU, 4 on a CPU)")
    parser.add_argument("--device", choices=get_args(Device), default="auto", help="auto takes a GPU if there is one")
    parser.add_argument(
        "--precision", choices=get_args(Precision), default="auto", help="as in evaluate.py (%(default)s)"
    )


def _formats(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.strip().lower().removeprefix(".") for name in text.split(",")))
    for name in names:
        if name not in FORMATS:
            raise argparse.ArgumentTypeError(f"unknown format {one_line(repr(name))}; choose from {', '.join(FORMATS)}")
    return names


def _count(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{one_line(text)}: is no whole number from 1 up")
    return int(text)


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{one_line(text)}: is no number from 0 to 1")
    return value
