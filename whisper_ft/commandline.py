"""The command line: defaults < `--config FILE` (repeatable, later wins) < `--section.field VALUE`, and what is refused.

`python -m whisper_ft.commandline train.py ARGUMENTS` checks a command line without a model, and without torch unless
there is a run to go on with; launch.sh asks it once, so that N processes do not all start, fail and say the same.
"""

import difflib
import glob
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

from whisper_ft import trackers, yaml12
from whisper_ft.config import Config, Data, Device, EvaluateConfig, is_hub_name
from whisper_ft.failure import UsageError
from whisper_ft.fields import flatten, leaves, to_plain
from whisper_ft.resume_rules import differences, rules
from whisper_ft.sources.shards import expanded

C = TypeVar("C", Config, EvaluateConfig)

NOTHING_TO_START = 100  # what `main` returns once it has shown --help: no exit code of a run


def load(cls: type[C], argv: Sequence[str] | None = None, program: str | None = None) -> C:
    """The configuration of a command line; UsageError in one line for anything that is wrong with it.

    Types, help and precedence are jsonargparse's; unknown keys are found first, because a nearest name helps more.
    `program` is the name in the help: that of the running script.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    _refuse_unknown(cls, argv)
    _refuse_strange_numbers(cls, argv)
    config = _parse(cls, argv, program or Path(sys.argv[0]).name)
    if isinstance(config, Config):
        _refuse_strange_changes(config)
    return config


def from_plain(cls: type[C], plain: dict[str, Any]) -> C:
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


def refuse_impossible(config: Config) -> None:
    """UsageError for what can be known to fail without loading anything: missing files, a missing GPU, another run.

    `launch.sh` asks this once before it starts any process, so that N processes do not all say the same.
    """
    refuse_missing_data(config.data)
    if config.eval.path:
        refuse_missing("eval.path", config.eval.path)
    refuse_missing_model("model.name", config.model.name)
    refuse_missing_gpu(config.device)
    trackers.refuse_missing(config.track.to)
    elsewhere = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    if elsewhere not in ("no", config.precision):
        raise UsageError(
            f"accelerate was told mixed_precision={elsewhere} and this run --precision {config.precision}; "
            "leave mixed_precision at 'no' in the accelerate configuration: the loop does it"
        )
    if config.run_dir.exists() and not config.run_dir.is_dir():
        raise UsageError(f"--run_dir {config.run_dir}: is a file, a folder is needed")
    has_run = any(config.run_dir.glob("checkpoints/step-*"))  # which may be the branch that the path began
    if config.resume not in ("auto", "never", "best") and not has_run and not Path(config.resume).is_dir():
        raise UsageError(f"--resume {config.resume}: neither auto, never or best, nor the folder of a checkpoint")
    if config.resume == "auto" and (saved := saved_config(config.run_dir)):
        refuse_changes(saved, config)


def refuse_impossible_evaluation(config: EvaluateConfig) -> None:
    """UsageError for what can be known to fail before a checkpoint is scored: a missing model, data or GPU."""
    for name, path in (("predictions", config.predictions), ("compare", config.compare)):
        if path is not None and not path.is_file():
            raise UsageError(f"--{name} {path}: there is no such file; give a predictions.jsonl")
    if config.predictions is not None:
        return
    refuse_missing_model("model", model_of(config.model))
    for _, where in config.named_sets:
        refuse_missing("sets: path" if config.sets else "data.path", where.path)
    refuse_missing_gpu(config.device)


def refuse_missing_data(data: Data) -> None:
    """UsageError for training data of which any is not there."""
    if not data.sources:
        refuse_missing("data.path", data.path)
    for source in data.sources:
        refuse_missing("data.sources: path", source.path)


def refuse_missing(name: str, path: str) -> None:
    """UsageError for a local path or glob that names nothing; an address with a scheme is left to its file system."""
    if not path:
        raise UsageError(
            f"--{name} is missing: a file, a folder, a glob, an address such as hf://..., or a data set on the Hub"
        )
    here = os.path.expanduser(path)
    if "://" in path or os.path.exists(here) or glob.glob(here):  # a real name may hold [ or *
        return
    if glob.glob(expanded(here)[0]):  # shards by numbers in braces, of which the first is asked for
        return
    if not is_hub_name(path):
        raise UsageError(f"--{name} {path}: there is no such file or folder")


def refuse_missing_model(name: str, path: str) -> None:
    """UsageError for an empty model name, or a local folder that is not there (`owner/name` is a name on the Hub)."""
    if not path:
        raise UsageError(f"--{name} is missing: a folder in the Hugging Face format, or a name on the Hub")
    on_hub = re.fullmatch(r"[\w.-]+(/[\w.-]+)?", path) and not path.startswith(".")
    if not Path(path).exists() and not on_hub:
        raise UsageError(f"--{name} {path}: there is no such folder")
    if Path(path).exists() and not Path(path, "config.json").exists():
        raise UsageError(f"--{name} {path}: holds no config.json, so it is not a model in the Hugging Face format")


def model_of(path: str) -> str:
    """The model that a run directory offers: the best, or the final of a run that evaluated nothing; else the path."""
    if path and not Path(path, "config.json").exists():
        for part in ("best", "final"):
            if Path(path, part, "config.json").exists():
                return str(Path(path, part))
    return path


def refuse_missing_gpu(device: Device) -> None:
    """UsageError when a GPU is asked for and there is none."""
    if device == "cuda":
        import torch  # seconds; only a user who asks for a GPU pays for it here

        if not torch.cuda.is_available():
            raise UsageError("--device cuda: torch sees no GPU here; --device auto or cpu would use the CPU")


def saved_config(run_dir: Path) -> dict[str, Any] | None:
    """The configuration that a run was last saved with; None of one without a checkpoint that tells it."""
    if not any(run_dir.glob("checkpoints/step-*")):
        return None
    from whisper_ft.checkpoint import newest_trainer  # with it comes torch, for seconds

    trainer = newest_trainer(run_dir / "checkpoints")
    return None if trainer is None else dict(trainer["config"])


def refuse_changes(saved: dict[str, Any], config: Config, checkpoint: Path | None = None) -> list[tuple[str, Any, Any]]:
    """Allowed changes (name, saved, now) of settings with the rule `change`; UsageError for any other difference.

    `checkpoint` is what holds `saved`, where that is not the run directory's own.
    """
    now = to_plain(config)
    is_own = checkpoint is None or config.run_dir.resolve() in checkpoint.resolve().parents
    holder = f"{config.run_dir} holds" if is_own else f"{checkpoint} is of"
    other_place = ", or choose another --run_dir" if is_own else ""

    def told(changes: list[tuple[str, Any, Any]]) -> str:
        return ", ".join(f"{name} was {then!r} and is {today!r}" for name, then, today in changes)

    if exact := differences(saved, now, "exact"):
        raise UsageError(
            f"{holder} a run of another configuration: {told(exact)}. Continue it with the old value{other_place}"
        )
    changed = differences(saved, now, "change")
    if silent := [change for change in changed if change[0] not in config.allow_change]:
        names = ", ".join(name for name, _, _ in silent)
        raise UsageError(
            f"{holder} a run of another configuration: {told(silent)}. Continue it with the old value, "
            f"allow it with --allow_change '[{names}]'{other_place}"
        )
    return changed


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


def _refuse_strange_changes(config: Config) -> None:
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


def _make_demo(config: Config) -> int:
    """Make what the demo's configurations train on, where it is named and not there: that is made, not shipped."""
    paths = (config.model.name, config.data.path, config.eval.path, *(source.path for source in config.data.sources))
    named = [Path(path).parts[:2] for path in paths]
    if all(parts[:1] != ("demo-data",) or Path(*parts).exists() for parts in named):
        return 0
    return subprocess.call([sys.executable, "-P", "-m", "whisper_ft.demo", "--out", "demo-data"])


def main(argv: Sequence[str]) -> int:
    """Check the command line of a program before it is launched, and make the demo's data if that is what is missing.

    0: start it. 2, with the reason: it cannot work. NOTHING_TO_START: it was --help, which is told here. Programs other
    than the two of this project check themselves.
    """
    program, arguments = Path(argv[0]).resolve(), argv[1:]
    ours = program.parent == Path(__file__).resolve().parents[1]
    try:
        if ours and program.name == "train.py":
            config = load(Config, arguments, program.name)
            if failed := _make_demo(config):
                return failed
            refuse_impossible(config)
        elif ours and program.name == "evaluate.py":
            refuse_impossible_evaluation(load(EvaluateConfig, arguments, program.name))
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except SystemExit:
        return NOTHING_TO_START
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
