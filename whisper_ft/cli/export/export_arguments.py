"""Command line of export. torch is not imported, so that --help and errors are quick."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from whisper_ft.cli.export.export_folder import refuse_taken
from whisper_ft.cli.export.targets import TARGETS, ExportTarget, Quantization, quantization_names
from whisper_ft.runtime.command import Parser
from whisper_ft.runtime.errors import UsageError
from whisper_ft.training.preflight import refuse_missing, refuse_missing_model
from whisper_ft.training.run_folder import is_run, model_of, public_name

DEFAULT_WORDS = 2000
"""Words of the references in a check without a number of clips, by which a WER of 10 % is known to 1.3 points."""
DESCRIPTION = """\
Export a model to the format of another engine. The engine then transcribes real clips in a process of its own, and its
output is compared with that of the model itself."""


@dataclass(frozen=True)
class CheckedModel:
    """Arguments of a command that writes a model in another form and checks it on clips."""

    model: str
    """Folder of the model or adapter, or its name on the Hub."""
    base: str | None
    """Base of an adapter; None for the one that its files name."""
    run: Path | None
    """Run directory that the model belongs to, with its config.yaml; None for any other model."""
    out: Path
    language: str | None
    data: str | None
    """Path of the clips for the check; None for the held-out set of the run."""
    clips: int | None
    """Number of utterances in the check; None for as many as hold DEFAULT_WORDS words, 0 for no check."""

    @property
    def name(self) -> str:
        """Name of the model for others."""
        return public_name(self.model)


@dataclass(frozen=True)
class ExportArguments(CheckedModel):
    """Checked arguments of an export."""

    target: ExportTarget
    quantization: Quantization


def parse_arguments(argv: Sequence[str]) -> ExportArguments | Path:
    """Parse the command line. Returns the folder to verify if --verify is given.

    Raises UsageError for anything that cannot work, before a model is loaded.
    """
    args = _parser().parse_args(argv)
    if args.verify is not None:
        others = (value for name, value in vars(args).items() if name != "verify")
        if any(value not in (None, False) for value in others):
            raise UsageError("--verify: takes a folder and nothing else")
        return Path(args.verify)
    if missing := [name for name in ("model", "to", "out") if getattr(args, name) is None]:
        names = ", ".join("RUN or MODEL" if name == "model" else f"--{name}" for name in missing)
        raise UsageError(f"missing: {names}; for example `export runs/mine --to ct2 --out mine-ct2`")
    target = TARGETS[args.to]
    quantization = target.quantization(args.quantization)
    checked = checked_model(args)
    target.refuse_missing_packages()
    return ExportArguments(**vars(checked), target=target, quantization=quantization)


def checked_model(args: argparse.Namespace) -> CheckedModel:
    """Check the arguments that `add_model_arguments` and `add_check_arguments` add.

    Raises UsageError if the model or the data is missing, or the folder --out is taken.
    """
    model = model_of(args.model)
    refuse_missing_model("MODEL", model)
    data, clips = _check_of(args.check or [])
    if data is not None:
        refuse_missing("check", data)
        if clips == 0:
            raise UsageError(
                f"--check 0 {data}: 0 means no check, so the data have no effect; leave one of the two out"
            )
    refuse_taken(args.out, args.overwrite)
    run = next((folder for folder in (Path(args.model), Path(model).parent) if is_run(folder)), None)
    return CheckedModel(model, args.base, run, args.out, args.language, data, clips)


def _check_of(values: Sequence[str]) -> tuple[str | None, int | None]:
    """Return data and number of clips of --check, each None if not given. Raises UsageError if one comes twice."""
    numbers = [int(value) for value in values if value.isdecimal()]
    paths = [value for value in values if not value.isdecimal()]
    if len(numbers) > 1 or len(paths) > 1:
        raise UsageError(f"--check {' '.join(values)}: takes a number of clips, a data set, or one of each")
    return next(iter(paths), None), next(iter(numbers), None)


def _parser() -> Parser:
    formats = "; ".join(f"{target.name}: {target.what}" for target in TARGETS.values())
    parser = Parser(prog="python -m whisper_ft export", description=DESCRIPTION)
    add_model_arguments(parser, "RUN|MODEL")
    parser.add_argument("--to", choices=list(TARGETS), help=f"format. {formats}")
    parser.add_argument(
        "--quantization", metavar="NAME",
        help=f"number format of the weights: {', '.join(quantization_names())}, as far as the format has it "
        f"(default: {', '.join(f'{target.quantizations[0].name} for {name}' for name, target in TARGETS.items())})",
    )  # fmt: skip
    add_check_arguments(parser, "an earlier export")
    parser.add_argument("--verify", metavar="DIR", help="only compare each file of an export with its recorded sha256")
    return parser


def add_model_arguments(parser: Parser, metavar: str) -> None:
    """Add the arguments that name a model; `metavar` stands for it in the help."""
    parser.add_argument(
        "model", nargs="?", metavar=metavar,
        help="run directory (its best model, else its final one), folder of a model or an adapter, or name on the Hub",
    )  # fmt: skip
    parser.add_argument("--base", metavar="MODEL", help="base of the adapter in MODEL (the one that its files name)")


def add_check_arguments(parser: Parser, replaced: str) -> None:
    """Add the arguments of the folder to write and of its check; `replaced` is a folder that --overwrite replaces."""
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder to create")
    parser.add_argument("--overwrite", action="store_true", help=f"replace DIR if it is {replaced}")
    parser.add_argument(
        "--check", nargs="+", metavar="N|DATA",
        help="number of clips, and data to take them from, in any format that evaluate.py reads "
        f"(default: clips with {DEFAULT_WORDS:,} words of the run's held-out set); 0: no check",
    )  # fmt: skip
    parser.add_argument("--language", metavar="CODE", help="language of the clips (default: as in the data or the run)")
