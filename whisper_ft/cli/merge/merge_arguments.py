"""Command line of merge. torch is not imported, so that --help and errors are quick."""

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from whisper_ft.cli.export.export_arguments import (
    CheckedModel,
    add_check_arguments,
    add_model_arguments,
    checked_model,
)
from whisper_ft.models.adapters.adapter_config import is_adapter
from whisper_ft.runtime.command import Parser
from whisper_ft.runtime.errors import UsageError

Onto = Literal["better", "float", "dequantised"]
DEFAULT_RISE = 0.2  # percentage points; a merge that only rounds otherwise stays far below it
DESCRIPTION = """\
Merge an adapter into its base and write a whole model, which loads without peft. Clips are transcribed with the adapter
and with the merged model, and their error rates and logits are compared."""


@dataclass(frozen=True)
class MergeArguments(CheckedModel):
    """Checked arguments of a merge."""

    onto: Onto
    max_rise: float | None
    """Largest allowed rise of the error rate, in percentage points; None for DEFAULT_RISE."""

    def refuse_unused(self) -> None:
        """Raise UsageError for a given argument of the check, for a merge that has no clips to check."""
        for name, value in (("max_wer_rise", self.max_rise), ("language", self.language)):
            if value is not None:
                raise UsageError(f"--{name} {value}: has no effect without clips; name a data set: --check DATA")


def parse_arguments(argv: Sequence[str]) -> MergeArguments:
    """Parse the command line. Raises UsageError for anything that cannot work, before a model is loaded."""
    args = _parser().parse_args(argv)
    if missing := [name for name in ("model", "out") if getattr(args, name) is None]:
        names = ", ".join("RUN or ADAPTER" if name == "model" else f"--{name}" for name in missing)
        raise UsageError(f"missing: {names}; for example `merge runs/mine --out mine-merged`")
    checked = checked_model(args)
    if Path(checked.model).exists() and not is_adapter(checked.model):
        raise UsageError(f"{args.model}: holds no adapter, so there is nothing to merge; the model is {checked.model}")
    arguments = MergeArguments(**vars(checked), onto=args.onto, max_rise=args.max_wer_rise)
    if arguments.clips == 0:
        arguments.refuse_unused()
    return arguments


def _parser() -> Parser:
    parser = Parser(prog="python -m whisper_ft merge", description=DESCRIPTION)
    add_model_arguments(parser, "RUN|ADAPTER")
    add_check_arguments(parser, "an earlier merge or export")
    parser.add_argument(
        "--onto", choices=get_args(Onto), default="better",
        help="for an adapter of an int8 or nf4 base: float is the base as it is stored, dequantised its rounded "
        "weights in float, and better the one with the lower error rate (%(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--max_wer_rise", type=_points, metavar="X",
        help=f"exit code 8 if the error rate rises by more percentage points than this ({DEFAULT_RISE})",
    )  # fmt: skip
    return parser


def _points(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text}: is no number from 0 up")
    return value
