"""Help of a program: first the settings that matter and examples, then the groups; `--help all` and `--help GROUP`."""

import re
import shutil
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

from whisper_ft.config.nearest import answer_to
from whisper_ft.runtime.errors import UsageError

HELP = ("--help", "-h")
GENERAL = "general"  # group of the settings outside every section
WIDEST_LINE = 100  # characters; longer lines are hard to read
INDENT = 6  # characters before the meaning of a setting


class FirstHelp(NamedTuple):
    """First page of a program's help."""

    settings: tuple[str, ...]
    """Dotted names of the settings that matter, in the order of need."""
    examples: tuple[tuple[str, str], ...]
    """Commands, each with its purpose."""


FIRST_HELP = {
    "TrainingConfig": FirstHelp(
        (
            "run_dir", "model.name", "data.path", "data.language", "eval.path", "epochs", "optim.lr", "batch.size",
            "batch.per_device", "eval.every",
        ),
        (
            (
                "./launch.sh --config configs/mine.yaml",
                "train on all visible GPUs, else on the CPU; run the same command again to continue after any stop",
            ),
            (
                "./launch.sh --config configs/mine.yaml --optim.lr 5e-6 --batch.per_device 4",
                "any setting on the command line; it wins over the file",
            ),
            (
                "./launch.sh --run_dir runs/mine --model.name openai/whisper-small --data.path my-data/train "
                "--data.language be --eval.path my-data/validation --adapter.kind lora",
                "without a file, and with an adapter, which needs less memory",
            ),
        ),
    ),
    "EvaluationConfig": FirstHelp(
        (
            "model", "data.path", "data.language", "out", "sets", "normalizer", "decoding.num_beams",
            "decoding.timestamps", "compare", "predictions",
        ),
        (
            ("python evaluate.py --model runs/mine --data.path my-data/test --out runs/mine/test", "the best model"),
            (
                "python evaluate.py --model openai/whisper-small --data.path my-data/test --data.language be "
                "--out start",
                "the model before the training",
            ),
            (
                "python evaluate.py --predictions runs/mine/test/predictions.jsonl --compare start/predictions.jsonl "
                "--out compared",
                "compare two systems on the same utterances, without a model",
            ),
        ),
    ),
    "PseudolabelConfig": FirstHelp(
        (
            "model", "data.path", "data.language", "out", "held_out", "agree_beams", "second", "max_disagreement",
            "min_logprob", "keep_from",
        ),
        (
            (
                "python -m whisper_ft pseudolabel runs/mine --data.path recordings --held_out my-data/test --out new",
                "label audio files, without those of the test set; the same command continues after any stop",
            ),
            (
                "python -m whisper_ft pseudolabel runs/mine --data.path recordings --out labels --agree_beams 5 "
                "--max_disagreement 0.1",
                "keep only what two searches agree on",
            ),
            (
                "python -m whisper_ft pseudolabel --keep_from labels --out stricter --min_logprob -0.3",
                "other limits, without transcribing again",
            ),
        ),
    ),
}  # fmt: skip
"""First page of the help, by the name of the configuration class. Any other class shows all settings at once."""

LAUNCHER = (
    ("--gpus 0,2", "use these GPUs (default: all visible ones)"),
    ("--dry_run", "print the command line of accelerate, and start nothing"),
    ("NPROC=2", "number of processes, as a variable: NPROC=2 ./launch.sh ..."),
    ("NODES, NODE_RANK, MASTER_ADDR", "several machines; docs/launch.md has them and Slurm"),
)
"""Options of launch.sh, which starts train.py and evaluate.py, each with its meaning."""


class HelpEntry(NamedTuple):
    """A setting as the help shows it."""

    name: str
    kind: str
    default: str
    meaning: str

    @property
    def group(self) -> str:
        """Section of the setting; GENERAL for one outside every section."""
        return self.name.rpartition(".")[0] or GENERAL


def is_help(argv: Sequence[str]) -> str | None:
    """Return the word after --help or -h in a command line, "" if none follows; None without such an option."""
    place = next((place for place, argument in enumerate(argv) if argument in HELP), None)
    return None if place is None else next(iter(argv[place + 1 :]), "")


def help_text(cls: Any, program: str, topic: str = "") -> str:
    """Return the help of a program.

    Parameters
        cls: its configuration class.
        topic: word after --help: `all`, a group, or a setting. Empty, or an option: the first page.

    Raises UsageError for any other word, with the nearest name.
    """
    entries, groups = [*help_entries(cls)], dict(_groups(cls, ""))
    first = FIRST_HELP.get(cls.__name__)
    usage = f"usage: {program} [--config FILE ...] [--section.field VALUE ...]\n"
    if topic == "all" or (first is None and (not topic or topic.startswith("-"))):
        lines = [usage, *_paragraphs(cls.__doc__), ""]
        for group, subject in groups.items():
            lines += [f"{group}: {subject}", *_settings(entry for entry in entries if entry.group == group)]
        return "\n".join([*lines, "--config FILE", *_meaning("YAML file of settings; repeatable, later ones win.")])
    if first is None or (topic and not topic.startswith("-")):
        chosen = [
            entry for entry in entries if topic in (entry.group, entry.name) or entry.group.startswith(f"{topic}.")
        ]
        if not chosen:
            raise UsageError(
                f"--help {topic}: no group or setting{answer_to(topic, [*groups, *(e.name for e in entries)])}"
            )
        return "\n".join([usage, f"{topic}: {groups[topic]}" if topic in groups else "", *_settings(chosen)])
    return "\n".join(_first_page(cls, program, usage, first, entries, groups))


def _first_page(
    cls: Any, program: str, usage: str, first: FirstHelp, entries: Sequence[HelpEntry], groups: dict[str, str]
) -> Iterator[str]:
    by_name = {entry.name: entry for entry in entries}
    yield usage
    yield from _paragraphs(cls.__doc__)
    yield "\nExamples:"
    for command, purpose in first.examples:
        yield from (f"  {line}" for line in _wrapped_command(command))
        yield from _meaning(purpose)
    yield "\nThe ten settings that matter most:"
    yield from _settings(by_name[name] for name in first.settings)
    yield f"All groups of settings; `{program} --help GROUP` describes one, `--help all` everything:"
    width = max(map(len, groups))
    yield from (f"  {group:<{width}}  {subject}" for group, subject in groups.items())
    yield "\nOptions of ./launch.sh, which starts this program:"
    width = max(len(option) for option, _ in LAUNCHER)
    yield from (f"  {option:<{width}}  {meaning}" for option, meaning in LAUNCHER)
    yield "\nFrom transformers' Trainer: docs/from-trainer.md. Errors, memory, subtitles: docs/faq.md."


def help_entries(cls: Any, prefix: str = "") -> Iterator[HelpEntry]:
    """Yield every setting of a configuration class, in the order of definition, and those of its lists of sections."""
    meanings, hints = meanings_of(cls), get_type_hints(cls)
    for leaf in fields(cls):
        hint, name = hints[leaf.name], f"{prefix}{leaf.name}"
        if is_dataclass(hint):
            yield from help_entries(hint, f"{name}.")
            continue
        default = leaf.default_factory() if callable(leaf.default_factory) else leaf.default
        shown = "none" if default is None or default == "" else _yaml(default)
        yield HelpEntry(name, kind_of(hint), shown, meanings.get(leaf.name, ""))


def meanings_of(cls: Any) -> dict[str, str]:
    """Return the docstrings of the fields of a configuration class by name, each as one line."""
    from docstring_parser import parse_from_object  # takes 0.1 s, which an import of the settings should not cost

    return {
        attribute.arg_name: " ".join((attribute.description or "").split())
        for base in reversed(cls.__mro__[:-1])
        for attribute in parse_from_object(base).params
    }


def kind_of(hint: Any) -> str:
    """Return the kind of value that a setting takes, such as `INT` or `{auto,fp32}`."""
    if get_origin(hint) is Literal:
        return "{" + ",".join(_yaml(value) for value in get_args(hint)) + "}"
    if get_origin(hint) in (Union, UnionType):
        return " or ".join(kind_of(part) for part in get_args(hint) if part is not NoneType)
    if get_origin(hint) in (list, tuple):
        return "[ITEM,...]"
    return "{true,false}" if hint is bool else {int: "INT", float: "NUMBER"}.get(hint, "TEXT")


def _yaml(value: Any) -> str:
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_yaml, value))}]"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _groups(cls: Any, prefix: str) -> Iterator[tuple[str, str]]:
    """Yield each group of settings with the first line of its class's docstring."""
    if not prefix:
        yield GENERAL, "the run as a whole" if cls.__name__ == "TrainingConfig" else "the program as a whole"
    for leaf, hint in get_type_hints(cls).items():
        if is_dataclass(hint):
            yield f"{prefix}{leaf}", _first_sentence(hint.__doc__)
            yield from _groups(hint, f"{prefix}{leaf}.")


def _first_sentence(text: str | None) -> str:
    paragraph = " ".join((text or "").split("\n\n")[0].split())
    return re.split(r"\.\s+(?=[A-Z])", paragraph)[0].rstrip(".")  # no split after "et al."


def _paragraphs(text: str | None) -> list[str]:
    paragraphs = [" ".join(part.split()) for part in (text or "").split("\n\n")]
    return [line for part in paragraphs for line in textwrap.wrap(part, _width(), break_on_hyphens=False)]


def _settings(entries: Any) -> Iterator[str]:
    """Yield the lines of settings: name, kind and default, then the meaning below."""
    for entry in entries:
        yield f"  --{entry.name} {entry.kind}  (default {entry.default})"
        yield from _meaning(entry.meaning)
    yield ""


def _meaning(text: str) -> list[str]:
    indent = " " * INDENT
    return textwrap.wrap(text, _width(), initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)


def _wrapped_command(command: str) -> list[str]:
    """Wrap a shell command at its options, so that it can still be copied."""
    lines = textwrap.wrap(
        command, _width() - 6, subsequent_indent="    ", break_on_hyphens=False, break_long_words=False
    )
    return [f"{line} \\" for line in lines[:-1]] + lines[-1:]


def _width() -> int:
    return min(shutil.get_terminal_size((WIDEST_LINE, 24)).columns, WIDEST_LINE)
