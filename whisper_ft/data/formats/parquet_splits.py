"""Splits and configurations of parquet files, found as the Hub finds them: by the card of the data set, else by names.

The rules for names are those of `datasets` (data_files.py): `data/SPLIT-00000-of-00001.parquet`, and files or folders
with a keyword such as `train` or `test` in their name. A folder with the name of a configuration holds its files.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from fsspec import AbstractFileSystem
from fsspec.utils import glob_translate

from whisper_ft.config import yaml12
from whisper_ft.config.data import SourceConfig
from whisper_ft.data.types import UnhonouredError
from whisper_ft.runtime.errors import UsageError

ALL = "all"
"""Value of `data.split` that reads every split."""
DEFAULT_SPLIT = "train"
DEFAULT_CONFIG = "default"
CARD = "README.md"
MAX_CARD_BYTES = 2**20
KEYWORDS = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
    "eval": "test",
    "evaluation": "test",
}
"""Words in names that mean a split (SPLIT_KEYWORDS in datasets/data_files.py)."""
_WORD = re.compile(r"[-._ 0-9]+")
"""Separator of the words in a name (NON_WORDS_CHARS in datasets/data_files.py)."""
_SHARD = re.compile(r"(?P<split>\w+(\.\w+)*)-\d{5}-of-\d{5}.*\.parquet")

Splits = dict[str | None, list[str]]
"""Files of each split; those of no split under None."""


class Chosen(NamedTuple):
    """Files to read, and their splits in words; None if the files have no splits."""

    files: list[str]
    split: str | None
    others: str | None = None
    """Splits that are not read although the user named none; None if there are none."""


def chosen_files(names: Sequence[str], card: Mapping[str, Any] | None, where: SourceConfig, named: bool) -> Chosen:
    """Choose the files of the configuration and splits that the settings name.

    If nothing is said, the only split is read, or `train` among several.

    Parameters
        names: files by their path below the folder, sorted.
        card: metadata of the data set's card, as from `read_card`; None without a card.
        named: the user named the files (a file or a glob). Then all of them are read if nothing is said.

    Raises UnhonouredError for a split or configuration that is not there, and UsageError if one must be chosen.
    """
    if named and not where.split and not where.config_name:
        return Chosen(list(names), _words(splits_by_name(names)))
    if where.split == ALL and not where.config_name:
        return Chosen(list(names), _words(splits_by_name(names)))
    splits = _of_config(names, card, where)
    if where.split == ALL:
        return Chosen(_all(splits), _words(splits))
    known = [split for split in splits if split is not None]
    if where.split is None:
        return _unasked(splits, known, where)
    wanted = list(dict.fromkeys(_known(part.strip(), known) for part in where.split.split("+")))
    if not known and wanted == [DEFAULT_SPLIT] and card is not None:
        return Chosen(splits[None], DEFAULT_SPLIT)  # the Hub calls files without a split `train`
    for split in wanted:  # as in the Hub's own conversion: CONFIG/train.clean.100/0000.parquet
        if split not in splits and (inside := [name for name in _all(splits) if split in name.split("/")[:-1]]):
            splits[split] = inside
    if missing := [split for split in wanted if split not in splits]:
        if not known:
            raise UnhonouredError(
                "split",
                f"--data.split {where.split}: has no effect on {where.path}, because the names of its parquet files "
                "show no splits; leave it out, or name the files as the path",
            )
        raise UnhonouredError(
            "split",
            f"{where.path}: has no split {missing[0]!r}; set --data.split to one of {', '.join(known)}, several as "
            f"a+b, or {ALL}",
        )
    return Chosen(sorted({file for split in wanted for file in splits[split]}), "+".join(wanted))


def _unasked(splits: Splits, known: list[str], where: SourceConfig) -> Chosen:
    """Choose the files if `data.split` is not given."""
    if len(known) == 1 and None not in splits:
        return Chosen(splits[known[0]], known[0])
    if not known:
        return Chosen(splits.get(None, []), None)
    if None in splits and DEFAULT_SPLIT not in known:
        raise UsageError(
            f"{where.path}: holds the split {', '.join(known)} and files of no split, such as {splits[None][0]}; set "
            f"--data.split to one of {', '.join(known)}, or to {ALL}, or name the files by a glob"
        )
    if DEFAULT_SPLIT in known:
        others = ", ".join(split or "files of no split" for split in splits if split != DEFAULT_SPLIT)
        return Chosen(splits[DEFAULT_SPLIT], DEFAULT_SPLIT, others or None)
    raise UsageError(
        f"{where.path}: has the splits {', '.join(known)}; set --data.split to one of them, several as a+b, or {ALL}"
    )


def _known(wanted: str, known: Sequence[str]) -> str:
    """Return the split that a word means: itself, or the split that the keyword stands for (`dev`: validation)."""
    return wanted if wanted in known else KEYWORDS.get(wanted.lower(), wanted)


def _all(splits: Splits) -> list[str]:
    return sorted({file for files in splits.values() for file in files})


def _words(splits: Splits) -> str | None:
    return "+".join(split for split in splits if split is not None) or None


def _of_config(names: Sequence[str], card: Mapping[str, Any] | None, where: SourceConfig) -> Splits:
    """Return the files of the chosen configuration by split."""
    configs = {name: files for name, config in _configs(card).items() if (files := _by_card(names, config))}
    wanted = where.config_name
    if configs and wanted is None:
        usual = next((name for name, config in _configs(card).items() if config.get("default") is True), DEFAULT_CONFIG)
        wanted = usual if usual in configs else next(iter(configs)) if len(configs) == 1 else None
        if wanted is None:
            raise UsageError(
                f"{where.path}: has several configurations; set --data.config_name to one of {', '.join(configs)}"
            )
    if wanted in configs:
        return configs[wanted]
    inside = [name for name in names if wanted in name.split("/")[:-1]]
    if wanted is None or (wanted == DEFAULT_CONFIG and not configs and not inside):
        return splits_by_name(names)
    if not inside:
        folders = list(configs) or sorted({folder for name in names for folder in name.split("/")[:-1]} - {"data"})
        way_out = f"set it to one of {', '.join(folders)}" if folders else "leave it out"
        raise UnhonouredError(
            "config_name",
            f"--data.config_name {wanted}: has no effect on {where.path}, which has no such configuration; {way_out}",
        )
    return splits_by_name([name for name in inside if name.split("/")[:-1]])


def splits_by_name(names: Iterable[str]) -> Splits:
    """Sort files into splits by their names. A keyword in a folder's name wins over one in the file's name.

    Files that show no split are those of the split None. The order within a split is that of `names`.
    """
    files = list(names)
    shards = {name: match["split"] for name in files if (match := _SHARD.fullmatch(name.rpartition("/")[2]))}
    # Any name of a shard is a split if it lies in `data/`, as push_to_hub writes it, or beside those of usual splits.
    are_splits = bool(set(shards.values()) & set(KEYWORDS))
    splits: Splits = {}
    for name in files:
        folders = name.split("/")[:-1]
        is_split = name in shards and (are_splits or folders[-1:] == ["data"])
        by_folder = next((split for folder in folders if (split := _keyword(folder))), None)
        split = shards[name] if is_split else by_folder or _keyword(name.rpartition("/")[2].removesuffix(".parquet"))
        splits.setdefault(split, []).append(name)
    return splits


def _keyword(name: str) -> str | None:
    return next((KEYWORDS[word] for word in _WORD.split(name.lower()) if word in KEYWORDS), None)


def read_card(file_system: AbstractFileSystem, folder: str) -> Mapping[str, Any] | None:
    """Read the metadata of the card (README.md) in a folder; None if there is no card or no readable metadata in it."""
    path = f"{folder.rstrip('/')}/{CARD}"
    if not file_system.isfile(path):
        return None
    text = file_system.cat_file(path, start=0, end=MAX_CARD_BYTES).decode("utf-8-sig", errors="replace")
    block = re.match(r"---[ \t]*\r?\n(.*?)^---[ \t]*\r?$", text, re.DOTALL | re.MULTILINE)
    if block is None:
        return None
    try:
        metadata = yaml12.load(block[1])
    except (yaml12.Error, RecursionError):
        return None
    return metadata if isinstance(metadata, dict) else None


def _configs(card: Mapping[str, Any] | None) -> dict[str, dict[str, Any]]:
    """Return the configurations of a card by name; those that cannot be understood are left out."""
    listed = (card or {}).get("configs")
    sections = listed if isinstance(listed, list) else []
    return {str(one.get("config_name", DEFAULT_CONFIG)): one for one in sections if isinstance(one, dict)}


def _by_card(names: Sequence[str], config: Mapping[str, Any]) -> Splits:
    """Return the files of a configuration of a card by split; {} if none of its files is here."""
    folder = str(config.get("data_dir") or "").strip("/")
    below = [name for name in names if not folder or name.startswith(f"{folder}/")]
    listed = config.get("data_files")
    if listed is None:
        return splits_by_name(below) if folder else {}
    splits: Splits = {}
    for part in listed if isinstance(listed, list) else [listed]:
        split, patterns = (part.get("split"), part.get("path")) if isinstance(part, dict) else (DEFAULT_SPLIT, part)
        for pattern in patterns if isinstance(patterns, list) else [patterns]:
            full = f"{folder}/{pattern}" if folder else str(pattern)
            splits.setdefault(str(split), []).extend(_matching(below, full.removeprefix("./")))
    return {split: files for split, files in splits.items() if files}


def _matching(names: Sequence[str], pattern: str) -> list[str]:
    try:
        matches = re.compile(glob_translate(pattern)).fullmatch
    except (ValueError, re.error):  # of a card, which a stranger wrote
        return []
    return [name for name in names if matches(name)]
