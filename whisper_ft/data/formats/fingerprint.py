"""Fingerprints of data: a summary of the index in a few JSON values, and the differences between two summaries."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

MAX_NAMED_FILES = 200
"""Most files that a fingerprint names, because every checkpoint holds it, and 200 names take about 15 kB."""
MAX_SHOWN = 5
"""Most files that a message names."""
CONTENT_KEYS = ("digest", "content", "rows", "files")
"""Keys of a fingerprint that show a change of the data."""
REPLACED = {
    "sizes": "files have other sizes, or are missing",
    "sample": "a sample of the files has other bytes",
    "versions": "files have other versions (ETag) at the same addresses",
}
"""Words for each key of `data.storage.content` that differs, although the index is the same."""

Group = tuple[int, int]
"""Rows and bytes of a row group."""


def of_files(names: Sequence[str], groups: Sequence[Sequence[Group]]) -> dict[str, Any]:
    """Build the fingerprint of files: counts, and a digest of names and row groups.

    Up to MAX_NAMED_FILES files are listed under `each` as {name: [rows, digest]}.
    """
    described = [(name, list(of_file)) for name, of_file in zip(names, groups, strict=True)]
    counts = [sum(rows for rows, _ in of_file) for of_file in groups]
    result: dict[str, Any] = {"files": len(names), "rows": sum(counts), "digest": _digest(described)}
    if len(names) <= MAX_NAMED_FILES:
        digests = [_digest(list(of_file))[:8] for of_file in groups]
        result["each"] = {name: [rows, digest] for name, rows, digest in zip(names, counts, digests, strict=True)}
    return result


def changed(then: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Describe the differences between two fingerprints; "" if all values that both have are equal.

    Another commit alone is no difference, because it may have changed other files only.
    """
    if "sources" in then or "sources" in now:
        return _changed_sources(then, now)
    known = {"commit", "each", *CONTENT_KEYS, *REPLACED}
    words = [
        f"{key} was {then[key]}, is {now[key]}"
        for key in then
        if key in now and key not in known and then[key] != now[key]
    ]
    if any(key in then and key in now and then[key] != now[key] for key in CONTENT_KEYS):
        if then.get("commit") != now.get("commit") and "commit" in then and "commit" in now:
            words.append(f"the commit moved from {then['commit']} to {now['commit']}")
        words.append(_changed_files(then, now) or _changed_counts(then, now))
    else:
        words += [text for key, text in REPLACED.items() if _is_other(then.get(key), now.get(key))]
    return "; ".join(words)


def with_content(fingerprint: Mapping[str, Any], content: Mapping[str, Any]) -> dict[str, Any]:
    """Return a fingerprint with the values of `content` added, for several sources to that of each."""
    if "sources" not in fingerprint:
        return {**fingerprint, **content}
    pairs = zip(fingerprint["sources"], content.get("sources", [{}] * len(fingerprint["sources"])), strict=True)
    return {**fingerprint, "sources": [{**of_source, **more} for of_source, more in pairs]}


def _is_other(then: Any, now: Any) -> bool:
    """True if a value differs. A missing one is not compared, nor are versions at other addresses."""
    if then is None or now is None or (isinstance(then, list) and then[0] != now[0]):
        return False
    return bool(then != now)


def _changed_sources(then: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    before, after = then.get("sources", [then]), now.get("sources", [now])
    if len(before) != len(after):
        return f"{len(before)} sources, now {len(after)}"
    others = [{key: value for key, value in mix.items() if key != "sources"} for mix in (then, now)]
    each = [changed(old, new) for old, new in zip(before, after, strict=True)]
    return "; ".join(
        [*filter(None, [changed(*others)]), *(f"source {n}: {words}" for n, words in enumerate(each) if words)]
    )


def _changed_files(then: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Describe the changes file by file; "" if a fingerprint does not list its files, or the lists are equal."""
    if "each" not in then or "each" not in now:
        return ""
    before, after = then["each"], now["each"]
    both = [name for name in before if name in after]
    changes = {
        "files added": [f"{name} ({after[name][0]} rows)" for name in after if name not in before],
        "files removed": [f"{name} ({before[name][0]} rows)" for name in before if name not in after],
        "other numbers of rows": [
            f"{name} ({before[name][0]}, now {after[name][0]})" for name in both if before[name][0] != after[name][0]
        ],
        "other content in as many rows": [
            name for name in both if before[name][0] == after[name][0] and before[name][1] != after[name][1]
        ],
    }
    return "; ".join(f"{change}: {_first(names)}" for change, names in changes.items() if names)


def _changed_counts(then: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    before, after = _counts(then), _counts(now)
    return f"other content in the same {before}" if before == after else f"{before}, now {after}"


def _counts(fingerprint: Mapping[str, Any]) -> str:
    return " of ".join(f"{fingerprint[key]} {key}" for key in ("rows", "files") if key in fingerprint) or "places"


def _first(names: Sequence[str]) -> str:
    more = f" and {len(names) - MAX_SHOWN} more" if len(names) > MAX_SHOWN else ""
    return ", ".join(names[:MAX_SHOWN]) + more


def _digest(described: Iterable[Any]) -> str:
    return hashlib.sha256(repr(described).encode()).hexdigest()[:16]
