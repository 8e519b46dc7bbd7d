"""Command line of pseudolabel. torch is not imported, so that --help and errors are quick."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from whisper_ft.cli.pseudolabel.label_record import found_languages, read_record, window_rows
from whisper_ft.config import yaml12
from whisper_ft.config.parse import config_from_plain, given_settings, load_config
from whisper_ft.config.pseudolabel import PseudolabelConfig, filtered_again
from whisper_ft.runtime.errors import UsageError

PROGRAM = "python -m whisper_ft pseudolabel"
HELD_OUT = "--held_out"


def parse_arguments(argv: Sequence[str]) -> PseudolabelConfig:
    """Parse the command line, in which MODEL may stand first, and each --held_out names one more set.

    With --keep_from, the settings are those of that folder, with the ones that the user gave. Raises UsageError for
    arguments that cannot work.
    """
    argv = _plain(argv)
    config = load_config(PseudolabelConfig, argv, PROGRAM)
    if config.out is None:
        raise UsageError("--out is missing: the folder for the shards")
    if config.keep_from is None:
        return config
    if config.out.resolve() == config.keep_from.resolve():
        raise UsageError(f"--out {config.out}: is the folder of --keep_from; name another folder")
    record = read_record(config.keep_from)
    if record["stage"] == "transcribing":
        raise UsageError(f"--keep_from {config.keep_from}: is not transcribed to its end; continue its command first")
    if config.require_language:
        _refuse_unknown_languages(config.keep_from, record)
    before = config_from_plain(PseudolabelConfig, record["settings"])
    return filtered_again(before, config, given_settings(PseudolabelConfig, argv))


def _refuse_unknown_languages(folder: Path, record: dict[str, Any]) -> None:
    """Raise UsageError if the language of the windows in a folder cannot be compared with a wanted one."""
    given = f"--require_language true: --keep_from {folder}"
    if found_languages(record):
        raise UsageError(
            f"{given} was labelled in the languages that were detected, so none is wanted; label the audio again with "
            "--data.language CODE --require_language true"
        )
    if record["settings"].get("require_language"):  # each window that could be heard has its language
        return
    if not any(row.get("detected_language") for row in window_rows(folder)):
        raise UsageError(
            f"{given} was labelled without the detection of languages; label the audio again with --require_language "
            "true"
        )


def _plain(argv: Sequence[str]) -> list[str]:
    """Return the arguments with MODEL as --model, and with all sets of --held_out as one list."""
    argv = [*argv]
    if argv and not argv[0].startswith("-"):
        if any(name == "--model" or name.startswith("--model=") for name in argv):
            raise UsageError(f"{argv[0]}: is given beside --model; give the model once")
        argv[:1] = [f"--model={argv[0]}"]
    sets: list[Any] = []
    rest: list[str] = []
    while argv:
        argument = argv.pop(0)
        name, has_value, value = argument.partition("=")
        if name != HELD_OUT:
            rest.append(argument)
            continue
        if not has_value:
            if not argv or argv[0].startswith("--"):
                raise UsageError(f"{HELD_OUT}: a set is missing; give its path")
            value = argv.pop(0)
        sets += _sets(value)
    return [*rest, f"{HELD_OUT}={json.dumps(sets)}"] if sets else rest


def _sets(value: str) -> list[Any]:
    """Return the sets of one --held_out: those of a list, or one that a mapping or a path gives."""
    if Path(value).exists():  # a real name may look like a list
        return [{"path": value}]
    try:
        loaded = yaml12.load(value)
    except yaml12.Error:
        loaded = value
    each = loaded if isinstance(loaded, list) else [loaded]
    return [one if isinstance(one, dict) else {"path": value if each == [loaded] else str(one)} for one in each]
