"""For people: `python -m whisper_ft.checkpoint list|verify|export DIR`, DIR being a run or one of its checkpoints."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from whisper_ft.runtime.command import Parser, exit_code_of
from whisper_ft.runtime.errors import ResumeError, UsageError

if TYPE_CHECKING:
    from whisper_ft.checkpoint.format import ListedCheckpoint


def main(argv: Sequence[str] | None = None) -> int:
    """Do one of the three. Exit code 2 for what is not there, 3 where a checkpoint is damaged, 6 for a full disk."""
    parser = Parser(prog="python -m whisper_ft.checkpoint", description=__doc__, allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True, parser_class=Parser)
    for name, told in (
        ("list", "a table of the checkpoints, newest first; only sizes are looked at"),
        ("verify", "hash every file, and say which checkpoint is not what was written"),
        ("export", "the weights of a checkpoint as a folder that from_pretrained loads; of a run the newest whole one"),
    ):
        command = commands.add_parser(name, help=told, description=told, allow_abbrev=False)
        command.add_argument("dir", type=Path, metavar="DIR", help="a run, its checkpoints/, or one checkpoint")
    command.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="a folder that is not there yet")
    command.add_argument("--model", metavar="NAME", help="whose configs and tokenizer to take; else what was trained")

    def program() -> None:
        given = parser.parse_args(argv)
        found = _checkpoints(given.dir)
        if given.command == "list":
            _list(found)
        elif given.command == "verify":
            _verify(found)
        else:
            _export(found, given.out, given.model)

    return exit_code_of(program)


def _checkpoints(folder: Path) -> "list[ListedCheckpoint]":
    """The checkpoint that a folder is, or those in it, newest first. UsageError where there are none."""
    from whisper_ft.checkpoint.format import list_checkpoints

    for place in (folder, folder / "checkpoints"):
        if found := list_checkpoints(place):
            return found
    if found := [one for one in list_checkpoints(folder.absolute().parent) if one.path.name == folder.absolute().name]:
        return found
    raise UsageError(f"{folder}: neither a run with checkpoints nor a checkpoint (a folder step-00001000)")


def _list(found: "list[ListedCheckpoint]") -> None:
    """A table of what the manifests say, and of why a checkpoint stays."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from whisper_ft.checkpoint.format import read_manifest, verify
    from whisper_ft.checkpoint.retention import PINNED

    table = Table("checkpoint", "save", "after", "MB", "written (UTC)", "sizes", "kept as")
    for one in found:
        problem = one.problem or verify(one.path, deep=False)
        manifest = {} if one.problem else read_manifest(one.path)
        size = sum(file["bytes"] for file in manifest.get("files", {}).values()) / 1e6 if not problem else None
        kept = [PINNED] if (one.path / PINNED).exists() else []
        kept += ["best"] if one.step == _best_step(one.path) else []
        table.add_row(
            one.path.name,
            "" if one.problem else str(one.save),
            escape(str(manifest.get("parent") or "")),
            "" if size is None else f"{size:.1f}",
            escape(str(manifest.get("time", ""))),
            escape(problem or "right"),
            ", ".join(kept),
        )
    # A pipe has no width, and a table that is cut there is of no use.
    Console(width=None if sys.stdout.isatty() else 160).print(table)


def _best_step(path: Path) -> int | None:
    """What best.json of the run around a checkpoint says; None where there is none."""
    try:
        return int(json.loads((path.parents[1] / "best.json").read_text(encoding="utf-8"))["step"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _verify(found: "list[ListedCheckpoint]") -> None:
    """A line for each checkpoint. ResumeError where one is damaged."""
    from whisper_ft.checkpoint.format import verify

    damaged = 0
    for one in found:
        problem = one.problem or verify(one.path)
        damaged += problem is not None
        print(f"{one.path.name}: {problem or 'whole'}", flush=True)
    if damaged:
        raise ResumeError(f"{damaged} of {len(found)} checkpoints cannot be used; a run passes them over")


def _export(found: "list[ListedCheckpoint]", out: Path, model: str | None) -> None:
    """The newest whole one of these as a folder for `from_pretrained`."""
    from whisper_ft import checkpoint
    from whisper_ft.models.export.hf import config_files, export
    from whisper_ft.models.whisper import load_whisper, quiet_libraries

    if out.exists():
        raise UsageError(f"--out {out}: is there already")
    quiet_libraries()
    for one in found:
        if problem := one.problem or checkpoint.verify(one.path):
            print(f"{one.path.name} is not usable: {problem}", file=sys.stderr)
            continue
        trained = str(checkpoint.read_record(one.path)["config"]["model"]["name"])
        try:
            loaded, processor = load_whisper(model or trained)
        except UsageError as error:
            raise UsageError(f"{error}; name the model it was trained from, or best/ of its run: --model") from error
        checkpoint.load_weights(one.path, loaded)  # which is to see that they fit
        readme = f"# Model at step {one.step}\n\nMade from {one.path.name} of a run that began at {trained}.\n"
        export(one.path / checkpoint.MODEL, config_files(loaded, processor), out, readme)
        print(f"{one.path.name} is in {out}")
        return
    raise ResumeError(f"{found[0].path.parent}: none of {len(found)} checkpoints is whole")


if __name__ == "__main__":
    sys.exit(main())
