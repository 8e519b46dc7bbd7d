"""Local paths: names that are no name on the Hub, and the message about a local path that is not there."""

import difflib
import re
from pathlib import Path

HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w.-]+")
"""Form of a name on the Hub, `owner/name`."""
FOLDERS = ("runs", "checkpoints", "corpora", "data", "datasets", "demo-data", "exp", "my-data", "output", "outputs")
"""First parts of paths as people call their folders."""
MODEL_PARTS = r"(best|final|average)(-adapter)?|interpolated|(step|checkpoint)-\d+|checkpoints"
"""Last parts of a path to a model that a training wrote."""
DATA_PARTS = r"train|training|test|testing|valid|validation|val|dev|eval"
"""Last parts of a path to a split of one's own data."""
SUFFIXES = r"jsonl?|csv|tsv|txt|parquet|arrow|tar|gz|tgz|zip|wav|flac|mp3|ogg|opus|m4a|bin|pt|safetensors|ya?ml"


def looks_local(path: str, last_parts: str = f"{MODEL_PARTS}|{DATA_PARTS}") -> bool:
    """Return True if a path is local by its looks, or because its first folder exists here, so the Hub is not asked.

    `owner/name` is the form of names on the Hub. A path of another form, one that ends in the suffix of a file, and one
    that begins or ends as paths of a training do, is local. An address such as hf://... is not.

    Parameters
        last_parts: pattern of the last parts that are local.
    """
    if "://" in path:
        return False
    if not HUB_NAME.fullmatch(path):
        return True
    owner, name = path.split("/")
    return (
        Path(owner).exists()
        or owner.lower() in FOLDERS
        or re.fullmatch(f"({last_parts})|.*[.]({SUFFIXES})", name.lower()) is not None
    )


def missing_message(path: str, kind: str) -> str:
    """Return the message about a local path that is not there, with the nearest name beside it, or the folder here.

    `kind` is a noun, such as `file or folder`.
    """
    message = f"there is no such {kind}"
    given = Path(path).expanduser()
    if re.fullmatch(DATA_PARTS, given.name) and any(_is_of_split(name, given.name) for name in _names_in(given.parent)):
        return f"{message}; did you mean the path {given.parent} with the split {given.name}?"
    present = next((parent for parent in given.parents if parent.exists()), None)
    if present is None or (given.is_absolute() and present == Path("/")):
        return message
    rest = given.relative_to(present).parts if present != Path() else given.parts
    near = difflib.get_close_matches(rest[0], _names_in(present), n=1)
    if near:
        return f"{message}; did you mean {present.joinpath(near[0], *rest[1:])}?"
    return message if given.is_absolute() else f"{message} in {Path.cwd()}"


def _is_of_split(name: str, split: str) -> bool:
    """Return True for the name of a file of a split, such as train-00000-of-00001.parquet."""
    return re.match(rf"{split}[-._]", name) is not None


def _names_in(folder: Path) -> list[str]:
    """Return the names in a folder, sorted; none if it cannot be read."""
    try:
        return sorted(entry.name for entry in folder.iterdir())
    except OSError:
        return []
