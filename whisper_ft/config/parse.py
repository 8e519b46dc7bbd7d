"""Command line of a program as a configuration, and its refusals.

Precedence: defaults < `--config FILE` (repeatable, later wins) < `--section.field VALUE`. Nothing here imports torch.
"""

import difflib
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_args, get_origin

from whisper_ft.config import yaml12
from whisper_ft.config.resume_policy import rules
from whisper_ft.config.training import TrainingConfig
from whisper_ft.config.tree import flatten, leaves
from whisper_ft.runtime.errors import FINISHED, UsageError
from whisper_ft.runtime.exit import exit_process, report_error

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

C = TypeVar("C", bound="DataclassInstance")


def load_config(cls: type[C], argv: Sequence[str] | None = None, program: str | None = None) -> C:
    """The configuration of a command line; UsageError in one line for anything that is wrong with it.

    Types, help and precedence are jsonargparse's; unknown keys are found first, because a nearest name helps more.
    `program` is the name in the help: that of the running script.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    _refuse_unknown(cls, argv)
    _refuse_strange_numbers(cls, argv)
    config = _parse(cls, argv, program or Path(sys.argv[0]).name)
    if isinstance(config, TrainingConfig):
        _refuse_strange_changes(config)
    return config


def early_answer(cls: type[C]) -> None:
    """Print --help, or refuse a command line that cannot be parsed, and exit; return for every other command line.

    A program calls this above its imports of torch and transformers, so both answers take less than a second.
    """
    try:
        load_config(cls)
    except UsageError as error:
        report_error(error, None)
        exit_process(error.exit_code)
    except SystemExit:  # after --help
        exit_process(FINISHED)


def config_from_plain(cls: type[C], plain: dict[str, Any]) -> C:
    """The configuration that `to_plain` wrote; UsageError where it is none."""
    return _parse(cls, plain, cls.__name__)


def _parse(cls: type[C], given: list[str] | dict[str, Any], program: str) -> C:
    """A command line, or what stands in a checkpoint, as a configuration."""
    import jsonargparse  # 0.1 s that importing a dataclass should not cost

    jsonargparse.set_parsing_settings(docstring_parse_attribute_docstrings=True)
    jsonargparse.set_loader("yaml12", yaml12.load, (yaml12.Error,))
    parser = jsonargparse.ArgumentParser(
        prog=program,
        description=cls.__doc__,
        exit_on_error=False,
        allow_abbrev=False,
        print_config=None,
        parser_mode="yaml12",
    )
    parser.add_argument("--config", action="config", help="YAML file of settings; repeatable, later ones win.")
    parser.add_class_arguments(cls)
    try:
        parsed = parser.parse_object(given) if isinstance(given, dict) else parser.parse_args(given)
        values = parser.instantiate(parsed)
        return cls(**{f.name: getattr(values, f.name) for f in fields(cls)})
    except (jsonargparse.ArgumentError, ValueError) as error:
        raise UsageError(_in_our_words(cls, str(error))) from error


def _given(cls: Any, argv: Sequence[str]) -> Iterator[tuple[str, Any, str]]:
    """(key, value, --config file or "") of each setting on a command line and in its files, before types are known."""
    for place, argument in enumerate(argv):
        if not argument.startswith("--"):
            continue
        name, is_whole, text = argument[2:].partition("=")
        if not is_whole:
            text = next((following for following in argv[place + 1 : place + 2] if following[:2] != "--"), "")
        if name == "config" and text:
            yield from ((key, value, text) for key, value in flatten(_read_config(text)).items())
        elif name in _sections(cls):
            yield from ((key, value, "") for key, value in flatten({name: _loaded(text)}).items())
        else:
            yield name.removesuffix("+"), _loaded(text), ""


def _loaded(text: str) -> Any:
    try:
        return yaml12.load(text)
    except yaml12.Error:
        return text


def _sections(cls: Any) -> set[str]:
    return {name.rsplit(".", 1)[0] for name, _ in leaves(cls) if "." in name}


def _refuse_unknown(cls: Any, argv: Sequence[str]) -> None:
    """UsageError with the nearest name for the first unknown key of the command line or of a --config file."""
    names = [name for name, _ in leaves(cls)]
    for key, _, file in _given(cls, argv):
        if key not in _sections(cls) and key not in (names if file else [*names, "config", "help"]):
            raise UsageError(f"{file and file + ': '}unknown setting {key!r}{_nearest(key, names)}")


def _nearest(key: str, names: Sequence[str]) -> str:
    near = difflib.get_close_matches(key, names, n=1, cutoff=0.5)
    near = near or [name for name in names if name.rsplit(".", 1)[-1] == key.rsplit(".", 1)[-1]][:1]
    return f"; did you mean {near[0]!r}?" if near else "; --help lists all settings"


def _refuse_strange_numbers(cls: Any, argv: Sequence[str]) -> None:
    """UsageError for a number that is not written in decimal digits.

    What yaml12 leaves as text, jsonargparse tries again in YAML 1.1, where 0x10, 0b11, 1_000 and 1:30 are numbers too.
    """
    types = {name: found.type for name, found in leaves(cls)}
    for name, value, file in _given(cls, argv):
        wanted = types.get(name)
        is_list = isinstance(value, list)
        if {int, float} & {wanted, *get_args(wanted)} and is_list == (get_origin(wanted) is tuple):
            for text in value if is_list else [value]:
                if isinstance(text, str) and re.search(r"\d", text) and not re.fullmatch("-?[0-9]+", text):
                    raise UsageError(f"{file and file + ': '}--{name} {text}: expected a number in decimal digits")


def _refuse_strange_changes(config: TrainingConfig) -> None:
    """UsageError for a name in --allow_change that cannot be allowed to change, or need not be."""
    for name in config.allow_change:
        kind = rules().get(name)
        if kind is None:
            near = _nearest(name, [one for one, kind in rules().items() if kind == "change"])
            raise UsageError(f"--allow_change: unknown setting {name!r}{near}")
        if kind == "exact":
            raise UsageError(f"--allow_change: {name} is exact: another value is another run, in another --run_dir")
        if kind == "free":
            raise UsageError(f"--allow_change: {name} is free: it may change at any time and need not be named")


def _read_config(path: str) -> dict[str, Any]:
    """The mapping in a --config file; UsageError where there is none."""
    try:
        value = yaml12.load(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"--config {path}: there is no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--config {path}: cannot be read ({error})") from None
    except yaml12.Error as error:
        raise UsageError(f"--config {path}: not the YAML this reads: {' '.join(str(error).split())}") from None
    if not isinstance(value, dict):
        raise UsageError(f"--config {path}: should hold `section: {{field: value}}`, holds {type(value).__name__}")
    return value


def _in_our_words(cls: Any, message: str) -> str:
    """The message of jsonargparse as one line about the flag."""
    line = " ".join(message.split())
    union = re.fullmatch(r"Parser key \"([\w.]+)\": .*Union subtypes Subtypes: \[(.*?)\] .*Given value: (.*)", line)
    if union is not None:
        name, subtypes, value = union.groups()
        kinds = " or ".join({"NoneType": "null"}.get(kind, kind) for kind in re.findall(r"'(\w+)'", subtypes))
        return f"--{name} {value}: expected {'an' if kinds.startswith('int') else 'a'} {kinds}"
    typed = re.fullmatch(r"Parser key \"([\w.]+)\": (.*) Got value: (.*)", line)
    if typed is None:
        return line
    name, expected, value = typed.groups()
    expected = re.sub(r"<class '(\w+)'>", r"\1", expected).replace("a typing.Literal", "one of ").rstrip(". ")
    told = f"--{name} {value}: {expected[0].lower()}{expected[1:].replace(' a int', ' an int')}"
    if not expected.endswith((" tuple", " list")):
        return told
    default = dict(leaves(cls))[name].default
    example = ", ".join(map(str, default)) if isinstance(default, tuple) else value
    return f"{told}, as in --{name} '[{example}]'"
