"""Command line of publish. torch and huggingface_hub are not imported, so that --help and errors are quick."""

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

from whisper_ft.config.local_paths import HUB_NAME
from whisper_ft.runtime.command import Parser
from whisper_ft.runtime.errors import UsageError, one_line
from whisper_ft.training.run_folder import RUN_MODELS

What = Literal["best", "final", "average", "interpolated", "best-adapter", "final-adapter", "average-adapter"]
WHAT: tuple[What, ...] = get_args(What)


def parse_arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the command line. Raises UsageError for wrong arguments, and for a RUN that is no run directory."""
    parser = Parser(
        prog="python -m whisper_ft publish",
        description="Upload a model of a run to the Hugging Face Hub, with a card made from the run directory. "
        "A preview is shown first. The token is read from HF_TOKEN in the environment.",
        allow_abbrev=False,
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="run directory")
    parser.add_argument("--repo", required=True, metavar="NAME", help="repository on the Hub: owner/name")
    parser.add_argument(
        "--what",
        choices=WHAT,
        help=f"which model of the run (the first that is there of {', '.join(RUN_MODELS)})",
    )
    parser.add_argument("--public", action="store_true", help="make a new repository public; else it is private")
    parser.add_argument("--yes", action="store_true", help="upload without confirmation")
    parser.add_argument(
        "--evaluation", action="append", default=[], type=Path, metavar="DIR",
        help="output folder of evaluate.py for this model: rates for the card, under the folder's name; repeatable",
    )  # fmt: skip
    parser.add_argument("--license", metavar="ID", help="as the Hub writes it: apache-2.0, mit, cc-by-4.0, ...")
    parser.add_argument(
        "--dataset", action="append", default=[], metavar="NAME",
        help="name of the training data on the card: a name on the Hub, or words; repeatable",
    )  # fmt: skip
    parser.add_argument("--base_model", metavar="NAME", help="name on the Hub of the model that the run started from")
    parser.add_argument("--card", type=Path, metavar="FILE", help="upload this card instead of the generated one")
    parser.add_argument("--write_card", type=Path, metavar="FILE", help="write the generated card, and upload nothing")
    args = parser.parse_args(argv)
    _refuse_impossible(args)
    args.what = args.what or next((name for name in RUN_MODELS if (args.run / name).is_dir()), "best")
    return args


def _refuse_impossible(args: argparse.Namespace) -> None:
    if not re.fullmatch(r"([\w-][\w.-]*/)?[\w-][\w.-]*", args.repo, re.ASCII):
        raise UsageError(f"--repo {one_line(args.repo)}: is no name of a repository, such as owner/name")
    if args.license and not re.fullmatch(r"[a-z0-9][a-z0-9.-]*", args.license):
        raise UsageError(f"--license {one_line(args.license)}: is no id of the Hub, such as apache-2.0")
    if args.base_model and not HUB_NAME.fullmatch(args.base_model):
        raise UsageError(
            f"--base_model {one_line(args.base_model)}: is no name on the Hub, such as openai/whisper-small"
        )
    if args.card:
        own = {"license": args.license, "dataset": args.dataset, "evaluation": args.evaluation}
        for name, value in (own | {"write_card": args.write_card}).items():
            if value:
                raise UsageError(f"--{name}: has no effect beside --card, which is uploaded as it is; leave one out")
    if not (args.run / "config.yaml").is_file():
        missing = (
            "is no run directory, because it has no config.yaml" if args.run.exists() else "there is no such folder"
        )
        raise UsageError(f"{args.run}: {missing}")
