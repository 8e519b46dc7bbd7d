"""Command line of publish. Without torch and huggingface_hub, so that --help and a refusal are quick."""

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from whisper_ft.runtime.command import Parser
from whisper_ft.runtime.errors import UsageError, one_line

What = Literal["best", "final", "average"]
WHAT: tuple[What, ...] = ("best", "final", "average")
HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w.-]+")


def arguments_of(argv: Sequence[str]) -> argparse.Namespace:
    """The arguments; UsageError for a command line that cannot work."""
    parser = Parser(
        prog="python -m whisper_ft publish",
        description="Put a model of a run on the Hugging Face Hub, with a card made of what the run wrote. Shows what "
        "would be uploaded first. The token is HF_TOKEN of the environment.",
        allow_abbrev=False,
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="run directory")
    parser.add_argument("--repo", required=True, metavar="NAME", help="repository on the Hub: owner/name")
    parser.add_argument("--what", choices=WHAT, default="best", help="which model of the run (%(default)s)")
    parser.add_argument("--public", action="store_true", help="make a new repository public; else it is private")
    parser.add_argument("--yes", action="store_true", help="upload without asking")
    parser.add_argument(
        "--evaluation", action="append", default=[], type=Path, metavar="DIR",
        help="what evaluate.py wrote for this model: figures for the card, under the folder's name; repeatable",
    )  # fmt: skip
    parser.add_argument("--license", metavar="ID", help="as the Hub writes it: apache-2.0, mit, cc-by-4.0, ...")
    parser.add_argument(
        "--dataset", action="append", default=[], metavar="NAME",
        help="what to call the training data on the card: a name on the Hub, or words; repeatable",
    )  # fmt: skip
    parser.add_argument("--base_model", metavar="NAME", help="name on the Hub of the model that the run started from")
    parser.add_argument("--card", type=Path, metavar="FILE", help="upload this card in place of the one that is made")
    parser.add_argument(
        "--write_card", type=Path, metavar="FILE", help="write the card that is made, and upload nothing"
    )
    asked = parser.parse_args(argv)
    _refuse_impossible(asked)
    return asked


def _refuse_impossible(asked: argparse.Namespace) -> None:
    if not re.fullmatch(r"([\w-][\w.-]*/)?[\w-][\w.-]*", asked.repo, re.ASCII):
        raise UsageError(f"--repo {one_line(asked.repo)}: is no name of a repository, such as owner/name")
    if asked.license and not re.fullmatch(r"[a-z0-9][a-z0-9.-]*", asked.license):
        raise UsageError(f"--license {one_line(asked.license)}: write it as the Hub does, such as apache-2.0")
    if asked.base_model and not HUB_NAME.fullmatch(asked.base_model):
        raise UsageError(
            f"--base_model {one_line(asked.base_model)}: is no name on the Hub, such as openai/whisper-small"
        )
    if not (asked.run / "config.yaml").is_file():
        missing = "holds no config.yaml, so it is no run directory" if asked.run.exists() else "there is no such folder"
        raise UsageError(f"{asked.run}: {missing}")
