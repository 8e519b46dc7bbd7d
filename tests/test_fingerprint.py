"""Fingerprints of data: small, comparable with older ones, and clear about what changed."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.elsewhere import write
from whisper_ft.config.data import SourceConfig
from whisper_ft.config.evaluation import DecodingConfig
from whisper_ft.data.formats.fingerprint import MAX_NAMED_FILES, changed, of_files
from whisper_ft.data.formats.parquet import open_parquet
from whisper_ft.decoding.eval_protocol import EvalProtocol

A, B, C = [(10, 100), (5, 50)], [(10, 90)], [(10, 91)]
MANY = dict.fromkeys(map(str, range(300)), B)
ADDED, REMOVED, OTHER = "files added: ", "files removed: ", "other content in as many rows: "


@pytest.mark.parametrize(
    ("then", "now", "said"),
    [
        ({"a": A, "b": B}, {"a": A, "b": B}, ""),
        ({"a": A}, {"a": A, "b": B}, f"{ADDED}b (10 rows)"),
        ({"a": A, "b": B}, {"b": B}, f"{REMOVED}a (15 rows)"),
        ({"a": A}, {"a": B}, "other numbers of rows: a (15, now 10)"),
        ({"a": A, "b": B}, {"a": A, "b": C}, f"{OTHER}b"),
        ({"a": A, "b": B}, {"b": C, "c": A}, f"{ADDED}c (15 rows); {REMOVED}a (15 rows); {OTHER}b"),
        (
            dict.fromkeys("abcdefg", B),
            {"a": B},
            REMOVED + ", ".join(f"{n} (10 rows)" for n in "bcdef") + " and 1 more",
        ),
        (MANY, MANY | {"new": A}, "3000 rows of 300 files, now 3015 rows of 301 files"),
        (MANY, MANY | {"7": C}, "other content in the same 3000 rows of 300 files"),
    ],
)
def test_a_change_of_files_is_put_in_words(then: dict[str, Any], now: dict[str, Any], said: str):
    before, after = of_files(list(then), list(then.values())), of_files(list(now), list(now.values()))
    assert changed(json.loads(json.dumps(before)), after) == said


DIGEST = {"rows": 5, "digest": "a"}


@pytest.mark.parametrize(
    ("then", "now", "said"),
    [
        (DIGEST, DIGEST | {"more": 1}, ""),
        (DIGEST, DIGEST | {"digest": "b"}, "other content in the same 5 rows"),
        (DIGEST, {"rows": 6, "digest": "b"}, "5 rows, now 6 rows"),
        (DIGEST | {"lanes": 16}, DIGEST | {"lanes": 32}, "lanes was 16, is 32"),
        (DIGEST, {"sources": [DIGEST, {"rows": 1}]}, "1 sources, now 2"),
        ({"sources": [DIGEST, {"rows": 1}]}, {"sources": [DIGEST, {"rows": 2}]}, "source 1: 1 rows, now 2 rows"),
        ({"lanes": 1, "sources": [DIGEST]}, {"lanes": 2, "sources": [DIGEST]}, "lanes was 1, is 2"),
    ],
)
def test_a_change_of_any_source_is_put_in_words(then: dict[str, Any], now: dict[str, Any], said: str):
    assert changed(then, now) == said


def test_a_fingerprint_stays_small_and_its_digest_is_that_of_runs_before_files_were_listed(tmp_path: Path):
    write(tmp_path / "a.parquet", 25)
    whole = open_parquet(SourceConfig(path=str(tmp_path))).fingerprint()
    group = [pq.read_metadata(tmp_path / "a.parquet").row_group(n) for n in range(3)]
    described = [("a.parquet", [(one.num_rows, one.total_byte_size) for one in group])]
    assert whole["digest"] == hashlib.sha256(repr(described).encode()).hexdigest()[:16]
    assert changed({name: whole[name] for name in ("files", "rows", "digest")}, whole) == ""
    assert "each" in of_files([str(n) for n in range(MAX_NAMED_FILES)], [B] * MAX_NAMED_FILES)
    assert "each" not in of_files([str(n) for n in range(MAX_NAMED_FILES + 1)], [B] * (MAX_NAMED_FILES + 1))


def test_evaluations_from_before_a_choice_are_comparable_with_those_that_make_the_usual_one():
    """The best of a run must not be given up because a setting was added that it never had."""
    now = EvalProtocol.of({"digest": "x"}, 12, DecodingConfig(), "fp32", "all")
    before = {name: value for name, value in now.to_json().items() if name != "timestamps"}
    assert EvalProtocol.from_json(before).matches(now)
    assert not EvalProtocol.from_json(before).matches(replace(now, timestamps=True))
    assert not EvalProtocol.from_json(before).matches(replace(now, num_beams=2))
