"""The command line: defaults < `--config FILE` (repeatable, later wins) < `--section.field VALUE`, and what is refused.

`python -m whisper_ft.commandline train.py ARGUMENTS` checks a command line without loading torch or a model; launch.sh
asks it once, so that N processes do not all start, fail and say the same.
"""

import difflib
import glob
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

from whisper_ft import yaml12
from whisper_ft.config import Config, Device, EvaluateConfig, differences, flatten, leaves, to_plain
from whisper_ft.failure import UsageError

C = TypeVar("C", Config, EvaluateConfig)


def load(cls: type[C], argv: Sequence[str] | None = None) -> C:
    """The configuration of a command line; UsageError in one line for anything that is wrong with it.

    Types, help and precedence are jsonargparse's; unknown keys are found first, because a nearest name helps more.
    """
    import jsonargparse  # 0.1 s that importing a dataclass should not cost

    argv = list(sys.argv[1:] if argv is None else argv)
    _refuse_unknown(cls, argv)
    jsonargparse.set_parsing_settings(docstring_parse_attribute_docstrings=True)
    jsonargparse.set_loader("yaml12", yaml12.load, (yaml12.Error,))
    parser = jsonargparse.ArgumentParser(
        prog=Path(sys.argv[0]).name,
        description=cls.__doc__,
        exit_on_error=False,
        allow_abbrev=False,
        print_config=None,
        parser_mode="yaml12",
    )
    parser.add_argument("--config", action="config", help="YAML file of settings; repeatable, later ones win.")
    parser.add_class_arguments(cls)
    try:
        values = parser.instantiate(parser.parse_args(argv))
        return cls(**{f.name: getattr(values, f.name) for f in fields(cls)})
    except (jsonargparse.ArgumentError, ValueError) as error:
        raise UsageError(_in_our_words(str(error))) from error


def refuse_impossible(config: Config) -> None:
    """UsageError for what can be known to fail without loading anything: missing files, a missing GPU, another run.

    `launch.sh` asks this once before it starts any process, so that N processes do not all say the same.
    """
    refuse_missing("data.path", config.data.path)
    if config.eval.path:
        refuse_missing("eval.path", config.eval.path)
    refuse_missing_model("model.name", config.model.name)
    refuse_missing_gpu(config.device)
    elsewhere = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    if elsewhere not in ("no", config.precision):
        raise UsageError(
            f"accelerate was told mixed_precision={elsewhere} and this run --precision {config.precision}; "
            "leave mixed_precision at 'no' in the accelerate configuration: the loop does it"
        )
    if config.run_dir.exists() and not config.run_dir.is_dir():
        raise UsageError(f"--run_dir {config.run_dir}: is a file, a folder is needed")
    if config.resume not in ("auto", "never", "best") and not Path(config.resume).is_dir():
        raise UsageError(f"--resume {config.resume}: neither auto, never or best, nor the folder of a checkpoint")
    if config.resume == "auto" and any(config.run_dir.glob("checkpoints/step-*")):
        try:
            saved = _read_config(str(config.run_dir / "config.yaml"))
        except UsageError:
            return  # gone or damaged; the configuration in the checkpoint is what counts, and is compared on resume
        refuse_changes(saved, config)


def refuse_missing(name: str, path: str) -> None:
    """UsageError for a local path or glob that names nothing; an address with a scheme is left to its file system."""
    if not path:
        raise UsageError(
            f"--{name} is missing: a parquet file, a folder of them, a glob, or an address such as hf://..."
        )
    if "://" not in path and not glob.glob(os.path.expanduser(path)):
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


def refuse_missing_gpu(device: Device) -> None:
    """UsageError when a GPU is asked for and there is none."""
    if device == "cuda":
        import torch  # seconds; only a user who asks for a GPU pays for it here

        if not torch.cuda.is_available():
            raise UsageError("--device cuda: torch sees no GPU here; --device auto or cpu would use the CPU")


def refuse_changes(saved: dict[str, Any], config: Config) -> list[tuple[str, Any, Any]]:
    """Allowed changes (name, saved, now) of settings with the rule `change`; UsageError for any other difference."""
    now = to_plain(config)

    def told(changes: list[tuple[str, Any, Any]]) -> str:
        return ", ".join(f"{name} was {then!r} and is {today!r}" for name, then, today in changes)

    if exact := differences(saved, now, "exact"):
        raise UsageError(
            f"{config.run_dir} holds a run of another configuration: {told(exact)}. Continue it with the old value, "
            "or choose another --run_dir"
        )
    changed = differences(saved, now, "change")
    if silent := [change for change in changed if change[0] not in config.allow_change]:
        names = ", ".join(name for name, _, _ in silent)
        raise UsageError(
            f"{config.run_dir} holds a run of another configuration: {told(silent)}. Continue it with the old value, "
            f"allow it with --allow_change '[{names}]', or choose another --run_dir"
        )
    return changed


def _refuse_unknown(cls: Any, argv: Sequence[str]) -> None:
    """UsageError with the nearest name for the first unknown key of the command line or of a --config file."""
    names = [name for name, _ in leaves(cls)]
    sections = {name.rsplit(".", 1)[0] for name in names if "." in name}
    expects_file = False
    for argument in argv:
        if expects_file or argument.startswith("--config="):
            for key in flatten(_read_config(argument.removeprefix("--config="))):
                _refuse_unknown_key(key, names, sections, argument.removeprefix("--config=") + ": ")
        elif argument.startswith("--"):
            _refuse_unknown_key(argument[2:].split("=")[0].removesuffix("+"), [*names, "config", "help"], sections, "")
        expects_file = argument == "--config"


def _refuse_unknown_key(key: str, names: Sequence[str], sections: set[str], where: str) -> None:
    if key in names or key in sections:
        return
    near = difflib.get_close_matches(key, names, n=1, cutoff=0.5)
    near = near or [name for name in names if name.rsplit(".", 1)[-1] == key.rsplit(".", 1)[-1]][:1]
    hint = f"; did you mean {near[0]!r}?" if near else "; --help lists all settings"
    raise UsageError(f"{where}unknown setting {key!r}{hint}")


def _read_config(path: str) -> dict[str, Any]:
    """The mapping in a --config file; UsageError where there is none."""
    try:
        value = yaml12.load(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"--config {path}: there is no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--config {path}: cannot be read ({error})") from None
    except yaml12.Error as error:
        raise UsageError(f"--config {path}: not the YAML this reads: {_one_line(str(error))}") from None
    if not isinstance(value, dict):
        raise UsageError(f"--config {path}: should hold `section: {{field: value}}`, holds {type(value).__name__}")
    return value


def _one_line(message: str) -> str:
    return " ".join(message.split())


def _in_our_words(message: str) -> str:
    """The message of jsonargparse as one line about the flag."""
    line = _one_line(message)
    typed = re.fullmatch(r"Parser key \"([\w.]+)\": (.*) Got value: (.*)", line)
    if typed is None:
        return line
    name, expected, value = typed.groups()
    expected = re.sub(r"<class '(\w+)'>", r"\1", expected).replace("a typing.Literal", "one of ").rstrip(". ")
    return f"--{name} {value}: {expected[0].lower()}{expected[1:].replace(' a int', ' an int')}"


def main(argv: Sequence[str]) -> int:
    """Check the command line of a program before it is launched; 2, with the reason, when it cannot work."""
    if Path(argv[0]).name != "train.py":
        return 0  # other programs check themselves; they do not start in many processes by default
    try:
        refuse_impossible(load(Config, argv[1:]))
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
