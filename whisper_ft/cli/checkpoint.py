"""List, verify or export the checkpoints of a run: `python -m whisper_ft checkpoint list|verify|export DIR`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from whisper_ft.runtime.command import Parser, exit_code_of
from whisper_ft.runtime.errors import ResumeError, UsageError
from whisper_ft.runtime.printable import counted, say

if TYPE_CHECKING:
    from whisper_ft.checkpoint.format import ListedCheckpoint


def main(argv: Sequence[str] | None = None) -> int:
    """List, verify or export checkpoints, and return the exit code. `argv` is None for the arguments of this process.

    It is 2 for wrong arguments or a folder without checkpoints, and 6 for a full disk. It is 3 if `verify` finds
    damage, or if `export` finds no whole checkpoint.
    """

    def program() -> None:
        args = _parser().parse_args(argv)
        checkpoints = _checkpoints(args.dir)
        if args.command == "list":
            _list(checkpoints)
        elif args.command == "verify":
            _verify(checkpoints)
        else:
            _export(checkpoints, args)

    return exit_code_of(program)


def _parser() -> Parser:
    parser = Parser(prog="python -m whisper_ft checkpoint", description="Checkpoints of a run: list, verify, export.")
    commands = parser.add_subparsers(dest="command", required=True, parser_class=Parser)
    for name, help in (
        ("list", "print a table of the checkpoints, newest first; checks file sizes only"),
        ("verify", "hash every file and name the checkpoints that are damaged"),
        ("export", "write a checkpoint, or the newest whole one, as a folder for from_pretrained, or for peft"),
    ):
        command = commands.add_parser(name, help=help, description=help)
        command.add_argument("dir", type=Path, metavar="DIR", help="a run, its checkpoints/, or one checkpoint")
    command.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="folder to create")
    command.add_argument(
        "--model", metavar="NAME", help="model whose configuration and tokenizer to use (default: the trained one)"
    )
    return parser


def _checkpoints(folder: Path) -> "list[ListedCheckpoint]":
    """Return the checkpoints of a run, newest first. If the folder is itself a checkpoint, only that one is returned.

    Raises UsageError if there is no checkpoint.
    """
    from whisper_ft.checkpoint.format import list_checkpoints

    for place in (folder, folder / "checkpoints"):
        if checkpoints := list_checkpoints(place):
            return checkpoints
    own_name = folder.absolute().name
    if checkpoints := [item for item in list_checkpoints(folder.absolute().parent) if item.path.name == own_name]:
        return checkpoints
    raise UsageError(f"{folder}: expected a run with checkpoints, or a checkpoint (a folder such as step-00001000)")


def _list(checkpoints: "list[ListedCheckpoint]") -> None:
    """Print a table of the checkpoints. Its last column says which are pinned, and which is the best."""
    from whisper_ft.checkpoint.checkpoint_manifest import read_manifest
    from whisper_ft.checkpoint.format import verify
    from whisper_ft.checkpoint.retention import PINNED
    from whisper_ft.checkpoint.state import read_best
    from whisper_ft.reports.safe_console import print_table

    rows = []
    for item in checkpoints:
        problem = item.problem or verify(item.path, deep=False)
        manifest = None if item.problem else read_manifest(item.path)
        kept = [PINNED] if (item.path / PINNED).exists() else []
        best = read_best(item.path.parents[1] / "best.json")
        kept += ["best"] if best and item.step == best.step else []
        row = (
            item.path.name,
            "" if manifest is None else str(item.save),
            (manifest and manifest.parent) or "",
            "" if problem or manifest is None else f"{manifest.bytes / 1e6:.1f}",
            manifest.time if manifest else "",
            problem or "right",
            ", ".join(kept),
        )
        rows.append(row)
    print_table(("checkpoint", "save", "after", "MB", "written (UTC)", "sizes", "kept as"), rows)


def _verify(checkpoints: "list[ListedCheckpoint]") -> None:
    """Print a line for each checkpoint: `whole`, or the problem. Raises ResumeError if any is damaged."""
    from whisper_ft.checkpoint.format import verify

    damaged = 0
    for item in checkpoints:
        problem = item.problem or verify(item.path)
        damaged += problem is not None
        say(f"{item.path.name}: {problem or 'whole'}")
    if damaged:
        raise ResumeError(f"{damaged} of {counted(len(checkpoints), 'checkpoint')} damaged; a resumed run skips them")


def _export(checkpoints: "list[ListedCheckpoint]", args: argparse.Namespace) -> None:
    """Export the newest undamaged checkpoint as a folder that `from_pretrained`, or peft, can load.

    Damaged ones are named. Raises UsageError if the folder exists or the model cannot be loaded, and ResumeError if
    every checkpoint is damaged.
    """
    from whisper_ft.checkpoint.format import verify
    from whisper_ft.cli.checkpoint_export import export_checkpoint
    from whisper_ft.models.whisper import quiet_libraries

    if args.out.exists():
        raise UsageError(f"--out {args.out}: is there already; name a new folder")
    quiet_libraries()
    for item in checkpoints:
        if problem := item.problem or verify(item.path):
            say(f"{item.path.name} is not usable: {problem}", file=sys.stderr)
            continue
        export_checkpoint(item.path, args.model, args.out)
        say(f"{item.path.name} is in {args.out}")
        return
    raise ResumeError(f"{checkpoints[0].path.parent}: none of {counted(len(checkpoints), 'checkpoint')} is whole")


if __name__ == "__main__":
    sys.exit(main())
