"""Files are whole under their final name, or not there."""

import errno
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from whisper_ft.runtime import atomic
from whisper_ft.runtime.errors import DiskError


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path):
    with pytest.raises(RuntimeError), atomic.new_folder(tmp_path / "a") as aside:
        (aside / "x").write_text("half")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    with atomic.new_folder(tmp_path / "a") as aside:
        (aside / "x").write_text("whole")
        assert not (tmp_path / "a").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_folder_of_the_same_name_is_replaced(tmp_path: Path):
    for text in ("old", "new"):
        with atomic.new_folder(tmp_path / "a") as aside:
            (aside / text).write_text(text)
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["new"]
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_what_a_killed_process_left_is_removed_and_nothing_else(tmp_path: Path):
    (tmp_path / ".tmp-step-1-abc").mkdir()
    (tmp_path / ".trash-step-1-abc").mkdir()
    (tmp_path / ".tmp-status.json-abc").write_text("half")
    (tmp_path / "step-00000001").mkdir()
    (tmp_path / "notes.txt").write_text("mine")
    atomic.clean(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes.txt", "step-00000001"]


def test_what_was_moved_away_to_be_replaced_and_was_not_gets_its_name_back(tmp_path: Path):
    """A kill between two renames: the old one is the only one of its kind."""
    for name in ("step-00000004", "other"):
        (tmp_path / f".replaced-{name}-0123abcd").mkdir()
        (tmp_path / f".replaced-{name}-0123abcd/old").touch()
    (tmp_path / ".tmp-step-00000004-4567cdef").mkdir()
    (tmp_path / "other").mkdir()
    atomic.clean(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "step-00000004"]
    assert (tmp_path / "step-00000004/old").exists()
    assert not (tmp_path / "other/old").exists()


def test_nan_is_not_json(tmp_path: Path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        atomic.write_json(tmp_path / "x.json", {"wer": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_files_are_readable_to_whom_the_umask_allows(tmp_path: Path):
    before = os.umask(0o027)
    try:
        with atomic.new_folder(tmp_path / "a") as aside:
            (aside / "x").write_text("x")
            (aside / "x").chmod(0o600)  # as safetensors leaves its files
            atomic.write_parts(aside / "y", [b"y"])
        atomic.write_text(tmp_path / "z", "z")
    finally:
        os.umask(before)
    assert [(tmp_path / name).stat().st_mode & 0o777 for name in ("a", "a/x", "a/y", "z")] == [0o750, *[0o640] * 3]


def test_a_full_disk_is_one_line():
    with (
        pytest.raises(DiskError, match="could not write somewhere: No space left on device"),
        atomic.disk_errors(Path("somewhere")),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_removing_a_folder_leaves_nothing_and_none_is_no_error(tmp_path: Path):
    (tmp_path / "a/b").mkdir(parents=True)
    assert atomic.remove(tmp_path / "a")
    assert not atomic.remove(tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


def test_bytes_and_sha256_are_those_of_the_file(tmp_path: Path):
    told = atomic.write_parts(tmp_path / "x", [b"ab", memoryview(b"cde"), b""])
    assert (tmp_path / "x").read_bytes() == b"abcde"
    assert told == {"bytes": 5, "sha256": hashlib.sha256(b"abcde").hexdigest()}


def test_lines_that_fail_half_way_leave_the_old_file_and_nothing_beside_it(tmp_path: Path):
    def lines() -> Iterator[str]:
        yield "half\n"
        raise ValueError("no JSON")

    atomic.write_text(tmp_path / "x", "whole\n")
    with pytest.raises(ValueError, match="no JSON"):
        atomic.write_lines(tmp_path / "x", lines())
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("x", "whole\n")]


def test_a_folder_that_has_no_room_is_refused_before_anything_is_written(tmp_path: Path):
    with (
        pytest.raises(
            DiskError, match=r"not enough room to write .*/a: 1000000000000000\.0 MB are needed and [0-9.]+ MB"
        ),
        atomic.new_folder(tmp_path / "a", needed=10**21),
    ):
        raise AssertionError("not reached")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_replaced_stays(tmp_path: Path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/old").touch()
    with pytest.raises(DiskError), atomic.new_folder(tmp_path / "a") as aside:
        aside.rename(tmp_path / "elsewhere")  # so that the last rename fails
        aside.mkdir()
        aside.rename(aside.with_name("gone"))
    assert (tmp_path / "a/old").exists()


def test_links_are_removed_and_never_followed(tmp_path: Path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real/mine").touch()
    for name in ("a", ".trash-b-01234567", ".tmp-c-01234567", ".replaced-real-01234567"):
        (tmp_path / name).symlink_to("real")
    assert atomic.remove(tmp_path / "a")
    atomic.clean(tmp_path)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["mine", "real"]
