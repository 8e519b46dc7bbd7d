"""Parser of a command line: it returns the configuration of a program, or refuses settings that are not valid.

A `--section.field VALUE` takes precedence over a `--config FILE`, and a file over the defaults. `--config` may be given
several times; later files take precedence. torch is not imported here.
"""

import os
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_args, get_origin

from whisper_ft.config.help import help_text, is_help
from whisper_ft.config.nearest import answer_to
from whisper_ft.config.resume_policy import rules
from whisper_ft.config.training import TrainingConfig
from whisper_ft.config.tree import flatten, leaves
from whisper_ft.runtime.errors import UsageError, as_missing_package
from whisper_ft.runtime.exit import exit_process, report_error
from whisper_ft.runtime.exit_codes import FINISHED
from whisper_ft.runtime.printable import say

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

C = TypeVar("C", bound="DataclassInstance")

MAIN_SETTINGS = ("name", "path", "kind", "enabled", "size", "every", "to", "of", "num_beams")
"""Last parts of the settings that a section's name stands for, if it is given a single value: `--model X`."""


def load_config(cls: type[C], argv: Sequence[str] | None = None, program: str | None = None) -> C:
    """Parse a command line into a configuration. Raises UsageError, with a message of one line, for an invalid one.

    jsonargparse checks types and applies the precedence. Unknown keys are refused before it runs, with the nearest
    known name in the message. --help prints the help of `whisper_ft.config.help` and raises SystemExit.

    Parameters
        argv: arguments; None for those of this process.
        program: name shown in the help; None for that of the script.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    program = program or Path(sys.argv[0]).name
    if (topic := is_help(argv)) is not None:
        _print_lines(help_text(cls, program, topic))
        raise SystemExit(FINISHED)
    _refuse_unknown(cls, argv)
    _refuse_single_values(cls, argv)
    _refuse_other_notations(cls, argv)
    config = _parse(cls, argv)
    if isinstance(config, TrainingConfig):
        _refuse_bad_changes(config)
    return config


def _print_lines(text: str) -> None:
    """Print a text of several lines, also if its reader has ended, as in `| head`."""
    try:
        say(*text.split("\n"))
    except BrokenPipeError:  # the interpreter would report it again at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def early_answer(cls: type[C]) -> None:
    """Print --help, or the error of an invalid command line, and exit. For a valid command line nothing is done.

    A program calls this before it imports torch and transformers, so both answers take less than a second.
    """
    try:
        load_config(cls)
    except UsageError as error:
        report_error(error, None)
        exit_process(error.exit_code)
    except ModuleNotFoundError as error:
        report_error(as_missing_package(error), None)
        exit_process(UsageError.exit_code)
    except SystemExit:  # after --help
        exit_process(FINISHED)


def given_settings(cls: type[C], argv: Sequence[str] | None = None) -> dict[str, str]:
    """Return the settings that the user gave: dotted name, and the --config file, or "" for the command line.

    A section that is given as a whole counts as the settings in it. `argv` is None for the arguments of this process.
    Raises UsageError if a --config file cannot be read; names and values are not checked.
    """
    given = [(name, file) for name, _, file in _settings_of(cls, list(sys.argv[1:] if argv is None else argv))]
    return dict(sorted(given, reverse=True))  # of several places, the command line is the last


def config_from_plain(cls: type[C], plain: dict[str, Any]) -> C:
    """Build a configuration from the mapping that `to_plain` returned. Raises UsageError for any other mapping."""
    return _parse(cls, plain)


def _parse(cls: type[C], given: list[str] | dict[str, Any]) -> C:
    """Build a configuration from a command line or from the mapping in a checkpoint; UsageError if it is invalid."""
    import jsonargparse  # takes 0.1 s, which an import of the settings should not cost

    parser = _parser_of(cls)
    try:
        parsed = parser.parse_object(given) if isinstance(given, dict) else parser.parse_args(given)
        values = parser.instantiate(parsed)
        return cls(**{f.name: getattr(values, f.name) for f in fields(cls)})
    except (jsonargparse.ArgumentError, ValueError) as error:
        raise UsageError(_flag_message(cls, str(error))) from error


@cache
def _parser_of(cls: type[Any]) -> Any:
    """Return the parser of a configuration class. It has no help texts, because the help is not made by it."""
    import jsonargparse

    from whisper_ft.config import yaml12  # needs a package, which `early_answer` may report as missing

    jsonargparse.set_loader("yaml12", yaml12.load, (yaml12.Error,))
    parser = jsonargparse.ArgumentParser(
        add_help=False,
        exit_on_error=False,
        allow_abbrev=False,
        print_config=None,
        parser_mode="yaml12",
    )
    parser.add_argument("--config", action="config")
    parser.add_class_arguments(cls)
    return parser


def _settings_of(cls: Any, argv: Sequence[str]) -> Iterator[tuple[str, Any, str]]:
    """Yield key, value and --config file ("" for a flag) of each setting of a command line. Types are not checked."""
    for place, argument in enumerate(argv):
        if not argument.startswith("--"):
            continue
        name, has_value, text = argument[2:].partition("=")
        if not has_value:
            text = next((value for value in argv[place + 1 : place + 2] if not value.startswith("--")), "")
        if name == "config" and text:
            yield from ((key, value, text) for key, value in flatten(_read_config(text)).items())
        elif name in _sections(cls):
            value = _loaded(text)
            file = value if isinstance(value, str) and Path(value).is_file() else ""
            section = {name: _read_config(file) if file else value}
            yield from ((key, value, file) for key, value in flatten(section).items())
        else:
            yield name.removesuffix("+"), _loaded(text), ""


def _loaded(text: str) -> Any:
    from whisper_ft.config import yaml12  # needs a package, which `early_answer` may report as missing

    try:
        return yaml12.load(text)
    except yaml12.Error:
        return text


def _sections(cls: Any) -> set[str]:
    return {name.rsplit(".", 1)[0] for name, _ in leaves(cls) if "." in name}


def _refuse_unknown(cls: Any, argv: Sequence[str]) -> None:
    """Raise UsageError, with the nearest name, for the first unknown key of a command line or of its --config files."""
    names = [name for name, _ in leaves(cls)]
    for key, _, file in _settings_of(cls, argv):
        if key not in _sections(cls) and key not in (names if file else [*names, "config", "help"]):
            raise UsageError(f"{file and file + ': '}unknown setting {key!r}{answer_to(key, names)}")
    for name, section in _lists_of_sections(cls):
        known = [inner for inner, _ in leaves(section, f"{name}.")]
        for key, _, file in _inner_settings_of(cls, argv, name):
            if key not in known:
                raise UsageError(f"{file and file + ': '}unknown setting {key!r}{answer_to(key, known)}")


def _refuse_single_values(cls: Any, argv: Sequence[str]) -> None:
    """Raise UsageError for a section that is given one value, such as `--model X`, with the setting that is meant.

    A section may be given a mapping, or a YAML file that holds one.
    """
    names = [name for name, _ in leaves(cls)]
    for key, value, file in _settings_of(cls, argv):
        is_value = isinstance(value, str | int | float | list) and value != ""
        if key in _sections(cls) and is_value and (file or not Path(str(value)).is_file()):
            meant = [f"{key}.{part}" for part in MAIN_SETTINGS if f"{key}.{part}" in names]
            hint = f"did you mean --{meant[0]} {value}?" if meant else f"--help {key} lists them"
            raise UsageError(f"{file and file + ': '}--{key} {value}: {key} is a section of settings; {hint}")


def _lists_of_sections(cls: Any) -> list[tuple[str, Any]]:
    """Return name and class of each setting that is a list of sections, such as data.sources."""
    inner = [(name, next(iter(get_args(leaf.type)), None)) for name, leaf in leaves(cls)]
    return [(name, section) for name, section in inner if is_dataclass(section)]


def _inner_settings_of(cls: Any, argv: Sequence[str], name: str) -> Iterator[tuple[str, Any, str]]:
    """Yield the settings in the sections of a list, as `_settings_of` does: `data.sources.path` and its value."""
    for key, value, file in _settings_of(cls, argv):
        for section in (value if isinstance(value, list) else [value]) if key == name else ():
            if isinstance(section, dict):
                yield from ((f"{name}.{inner}", text, file) for inner, text in section.items())


def _refuse_other_notations(cls: Any, argv: Sequence[str]) -> None:
    """Raise UsageError for a number that is not written in decimal digits.

    yaml12 returns 0x10, 0b11, 1_000 and 1:30 as text. jsonargparse then reads them again by YAML 1.1, as numbers.
    """
    types = {name: setting.type for name, setting in leaves(cls)}
    given = [*_settings_of(cls, argv)]
    for name, section in _lists_of_sections(cls):
        types |= {inner: setting.type for inner, setting in leaves(section, f"{name}.")}
        given += _inner_settings_of(cls, argv, name)
    for name, value, file in given:
        wanted = types.get(name)
        is_list = isinstance(value, list)
        if {int, float} & {wanted, *get_args(wanted)} and is_list == (get_origin(wanted) is tuple):
            for text in value if is_list else [value]:
                if isinstance(text, str) and re.search(r"\d", text) and not re.fullmatch("-?[0-9]+", text):
                    raise UsageError(f"{file and file + ': '}--{name} {text}: expected a number in decimal digits")


def _refuse_bad_changes(config: TrainingConfig) -> None:
    """Raise UsageError for a name in --allow_change that is unknown, may never change, or may always change."""
    for name in config.allow_change:
        kind = rules().get(name)
        if kind is None:
            near = answer_to(name, [other for other, kind in rules().items() if kind == "change"])
            raise UsageError(f"--allow_change: unknown setting {name!r}{near}")
        if kind == "exact":
            raise UsageError(
                f"--allow_change: {name} is exact and cannot change; start another run in another --run_dir"
            )
        if kind == "free":
            raise UsageError(f"--allow_change: {name} is free and may change at any time; do not name it")


def _read_config(path: str) -> dict[str, Any]:
    """Read the mapping in a --config file. Raises UsageError if the file cannot be read or holds no mapping."""
    from whisper_ft.config import yaml12  # needs a package, which `early_answer` may report as missing

    try:
        value = yaml12.load(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"--config {path}: there is no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--config {path}: cannot be read ({error})") from None
    except yaml12.Error as error:
        raise UsageError(f"--config {path}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(value, dict):
        raise UsageError(
            f"--config {path}: expected a mapping `section: {{field: value}}`, got a {type(value).__name__}"
        )
    return value


def _flag_message(cls: Any, message: str) -> str:
    """Rewrite an error message of jsonargparse as one line about a flag: `--steps many: expected an int`."""
    in_list = r"Parser key \"([\w.]+)\": Problem with given class_path '[\w.]+': Parser key \"(\w+)\":"
    line = re.sub(in_list, r'Parser key "\1: \2":', " ".join(message.split()))
    union = re.fullmatch(
        r"Parser key \"([\w.]+(?:: \w+)?)\": .*Union subtypes Subtypes: \[(.*?)\] Errors: .*Given value: (.*)", line
    )
    if union is not None:
        name, subtypes, value = union.groups()
        if "Literal[" in subtypes:
            named = re.findall(r"'(\w+)'", subtypes)
            if named[0] in ("int", "float"):
                return f"--{name} {value}: expected {'an' if named[0] == 'int' else 'a'} {' or '.join(named)}"
            values = ", ".join("true, false" if value == "bool" else value for value in named)
            return f"--{name} {value}: expected one of {values}{', or a list' if ' list[' in subtypes else ''}"
        kinds = " or ".join({"NoneType": "null"}.get(kind, kind) for kind in re.findall(r"'(\w+)'", subtypes))
        article = "" if "Literal" in subtypes else "an " if kinds.startswith("int") else "a "
        return (
            f"--{name} {value}: expected {article}{kinds}{' or a list of numbers' if 'list[float]' in subtypes else ''}"
        )
    typed = re.fullmatch(r"Parser key \"([\w.]+(?:: \w+)?)\": (.*) Got value: (.*)", line)
    if typed is None:
        return line
    name, expected, value = typed.groups()
    expected = re.sub(r"<class '(\w+)'>", r"\1", expected).replace("a typing.Literal", "one of ").rstrip(". ")
    refusal = f"--{name} {value}: {expected[0].lower()}{expected[1:].replace(' a int', ' an int')}"
    if not expected.endswith((" tuple", " list")):
        return refusal
    default = dict(leaves(cls))[name].default if ": " not in name else value
    example = ", ".join(map(str, default)) if isinstance(default, tuple) else value
    return f"{refusal}, as in --{name} '[{example}]'"
