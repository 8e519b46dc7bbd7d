"""The shards of a WebDataset by their names: a folder, a glob, numbers in braces."""

import re
from collections.abc import Iterable, Sequence
from typing import Any

import fsspec

from whisper_ft.runtime.errors import UsageError

MAX_SHARDS = 1_000_000
BRACES = re.compile(r"\{([^{}]*)\}")
RANGE = re.compile(r"(\d+)\.\.(\d+)")


def shards_of(path: str) -> list[str]:
    """Addresses of the shards that a path names. What is there is meant literally, also if it could be a pattern."""
    file_system, stripped = fsspec.core.url_to_fs(path)
    if stripped.endswith(".tar") and file_system.isfile(stripped):
        return [path]
    if file_system.isdir(stripped):
        found = sorted(name for name in file_system.find(stripped) if name.endswith(".tar"))
        return [_address(file_system, path, name) for name in found]
    shards = []
    for name in expanded(path):
        if any(sign in name for sign in "*?["):
            matched = sorted(file_system.glob(file_system._strip_protocol(name)))
            shards += [_address(file_system, path, one) for one in matched if one.endswith(".tar")]
        else:
            shards.append(name)
    return list(dict.fromkeys(shards))


def _address(file_system: Any, path: str, name: str) -> str:
    """A file as `path` is written: with the protocol where that has one."""
    return str(file_system.unstrip_protocol(name)) if "://" in path else name


def expanded(path: str) -> list[str]:
    """`a{00..02}b` as three, `a{x,y}b` as two; digits keep their number."""
    names = [path]
    while (found := BRACES.search(names[0])) is not None:
        if numbers := RANGE.fullmatch(found[1]):
            first, last = int(numbers[1]), int(numbers[2])
            count = last - first + 1
            values: Iterable[str] = (str(number).zfill(len(numbers[1])) for number in range(first, last + 1))
        else:
            values = parts = found[1].split(",")
            count = len(parts)
        if not 0 < count * len(names) <= MAX_SHARDS:
            raise UsageError(f"{path}: {{{found[1]}}} should be numbers that go up, or names, of {MAX_SHARDS} at most")
        filled = list(values)
        names = [BRACES.sub(lambda _, value=value: value, name, count=1) for name in names for value in filled]  # type: ignore[misc]
    return names


def names_of(shards: Sequence[str]) -> list[str]:
    """Names of shards below the folder that all are in."""
    folders = [shard.split("/")[:-1] for shard in shards]
    shared = next((i for i, names in enumerate(zip(*folders, strict=False)) if len(set(names)) > 1), None)
    depth = min(map(len, folders)) if shared is None else shared
    return ["/".join(shard.split("/")[depth:]) for shard in shards]
