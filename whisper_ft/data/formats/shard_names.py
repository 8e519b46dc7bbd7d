"""Names of WebDataset shards, given as a folder, a glob, or numbers in braces."""

import re
from collections.abc import Iterable, Sequence

import fsspec
from fsspec import AbstractFileSystem

from whisper_ft.runtime.errors import UsageError

MAX_SHARDS = 1_000_000
"""Most names that braces may stand for, so that a mistyped number is refused and not expanded."""
BRACES = re.compile(r"\{([^{}]*)\}")
NUMBER_RANGE = re.compile(r"(\d+)\.\.(\d+)")


def shards_of(path: str) -> list[str]:
    """Find the shards that a path names, each once. An existing name is taken literally, even if it could be a pattern.

    Those of a folder or a glob are sorted, and names in braces keep their order. A name without a glob is returned
    without a look at the file. Raises UsageError as `expanded` does.
    """
    file_system, stripped = fsspec.core.url_to_fs(path)
    if stripped.endswith(".tar") and file_system.isfile(stripped):
        return [path]
    if file_system.isdir(stripped):
        names = sorted(name for name in file_system.find(stripped) if name.endswith(".tar"))
        return [_address(file_system, path, name) for name in names]
    shards = []
    for pattern in expanded(path):
        if any(sign in pattern for sign in "*?["):
            matches = sorted(file_system.glob(file_system._strip_protocol(pattern)))
            shards += [_address(file_system, path, name) for name in matches if name.endswith(".tar")]
        else:
            shards.append(pattern)
    return list(dict.fromkeys(shards))


def _address(file_system: AbstractFileSystem, path: str, name: str) -> str:
    """Address of a file, written as `path` is: with a protocol only if `path` has one."""
    return str(file_system.unstrip_protocol(name)) if "://" in path else name


def expanded(path: str) -> list[str]:
    """Expand the braces in a path: `a{00..02}b` gives three names, `a{x,y}b` two. The number of digits is kept.

    Raises UsageError for falling numbers, and for more than MAX_SHARDS names.
    """
    names = [path]
    while (braces := BRACES.search(names[0])) is not None:
        if numbers := NUMBER_RANGE.fullmatch(braces[1]):
            first, last = int(numbers[1]), int(numbers[2])
            count = last - first + 1
            values: Iterable[str] = (str(number).zfill(len(numbers[1])) for number in range(first, last + 1))
        else:
            values = parts = braces[1].split(",")
            count = len(parts)
        if not 0 < count * len(names) <= MAX_SHARDS:
            raise UsageError(
                f"{path}: {{{braces[1]}}} should be rising numbers, or names, {MAX_SHARDS} shards at most; "
                "correct --data.path"
            )
        filled = list(values)
        names = [name.replace(braces[0], value, 1) for name in names for value in filled]
    return names


def names_of(shards: Sequence[str]) -> list[str]:
    """Names of shards relative to the deepest folder that contains all of them."""
    folders = [shard.split("/")[:-1] for shard in shards]
    shared = next((i for i, names in enumerate(zip(*folders, strict=False)) if len(set(names)) > 1), None)
    depth = min(map(len, folders)) if shared is None else shared
    return ["/".join(shard.split("/")[depth:]) for shard in shards]
