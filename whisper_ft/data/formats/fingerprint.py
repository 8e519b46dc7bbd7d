"""Fingerprints: what was indexed, in a few JSON values, and what two of them say has changed."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

LISTED = 200  # files named one by one; a fingerprint is in every checkpoint, and 200 names are some 15 kB
SHOWN = 5  # files named in a message
CONTENT = ("digest", "content", "rows", "files")  # values that differ when the data does

Group = tuple[int, int]  # rows and bytes of a row group


def of_files(names: Sequence[str], groups: Sequence[Sequence[Group]]) -> dict[str, Any]:
    """Counts, a digest of names and row groups, and of up to LISTED files {name: [rows, digest]} as `each`."""
    described = [(name, list(of_file)) for name, of_file in zip(names, groups, strict=True)]
    counts = [sum(rows for rows, _ in of_file) for of_file in groups]
    whole: dict[str, Any] = {"files": len(names), "rows": sum(counts), "digest": _digest(described)}
    if len(names) <= LISTED:
        digests = [_digest(list(of_file))[:8] for of_file in groups]
        whole["each"] = {name: [rows, digest] for name, rows, digest in zip(names, counts, digests, strict=True)}
    return whole


def changed(then: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """What differs between two fingerprints, in words; "" if nothing that both of them know of.

    A commit that moved is no change by itself: it can have touched other files.
    """
    if "sources" in then or "sources" in now:
        return _changed_sources(then, now)
    known = {"commit", "each", *CONTENT}
    words = [
        f"{key} was {then[key]}, is {now[key]}"
        for key in then
        if key in now and key not in known and then[key] != now[key]
    ]
    if any(key in then and key in now and then[key] != now[key] for key in CONTENT):
        if then.get("commit") != now.get("commit") and "commit" in then and "commit" in now:
            words.append(f"the commit moved from {then['commit']} to {now['commit']}")
        words.append(_changed_files(then, now) or _changed_counts(then, now))
    return "; ".join(words)


def _changed_sources(then: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    before, after = then.get("sources", [then]), now.get("sources", [now])
    if len(before) != len(after):
        return f"{len(before)} sources, now {len(after)}"
    around = changed(*({key: value for key, value in whole.items() if key != "sources"} for whole in (then, now)))
    each = [changed(old, new) for old, new in zip(before, after, strict=True)]
    return "; ".join([*filter(None, [around]), *(f"source {n}: {words}" for n, words in enumerate(each) if words)])


def _changed_files(then: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Which files differ, and how; "" where not every file is listed, or the listing is the same."""
    if "each" not in then or "each" not in now:
        return ""
    before, after = then["each"], now["each"]
    both = [name for name in before if name in after]
    found = {
        "files added": [f"{name} ({after[name][0]} rows)" for name in after if name not in before],
        "files removed": [f"{name} ({before[name][0]} rows)" for name in before if name not in after],
        "other numbers of rows": [
            f"{name} ({before[name][0]}, now {after[name][0]})" for name in both if before[name][0] != after[name][0]
        ],
        "other content in as many rows": [
            name for name in both if before[name][0] == after[name][0] and before[name][1] != after[name][1]
        ],
    }
    return "; ".join(f"{what}: {_some(names)}" for what, names in found.items() if names)


def _changed_counts(then: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    counts = [_counts(whole) for whole in (then, now)]
    return f"other content in the same {counts[0]}" if counts[0] == counts[1] else f"{counts[0]}, now {counts[1]}"


def _counts(whole: Mapping[str, Any]) -> str:
    return " of ".join(f"{whole[key]} {key}" for key in ("rows", "files") if key in whole) or "places"


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def _digest(described: Iterable[Any]) -> str:
    return hashlib.sha256(repr(described).encode()).hexdigest()[:16]
