"""Files are whole under their final name, or not there."""

import errno
from pathlib import Path

import pytest

from whisper_ft import durable
from whisper_ft.failure import DiskError


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path):
    with pytest.raises(RuntimeError), durable.new_folder(tmp_path / "a") as aside:
        (aside / "x").write_text("half")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    with durable.new_folder(tmp_path / "a") as aside:
        (aside / "x").write_text("whole")
        assert not (tmp_path / "a").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_folder_of_the_same_name_is_replaced(tmp_path: Path):
    for text in ("old", "new"):
        with durable.new_folder(tmp_path / "a") as aside:
            (aside / text).write_text(text)
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["new"]
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_what_a_killed_process_left_is_removed_and_nothing_else(tmp_path: Path):
    (tmp_path / ".tmp-step-1-abc").mkdir()
    (tmp_path / ".trash-step-1-abc").mkdir()
    (tmp_path / ".tmp-status.json-abc").write_text("half")
    (tmp_path / "step-00000001").mkdir()
    (tmp_path / "notes.txt").write_text("mine")
    durable.clean(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes.txt", "step-00000001"]


def test_what_was_moved_away_to_be_replaced_and_was_not_gets_its_name_back(tmp_path: Path):
    """A kill between two renames: the old one is the only one of its kind."""
    for name in ("step-00000004", "other"):
        (tmp_path / f".replaced-{name}-0123abcd").mkdir()
        (tmp_path / f".replaced-{name}-0123abcd/old").touch()
    (tmp_path / ".tmp-step-00000004-4567cdef").mkdir()
    (tmp_path / "other").mkdir()
    durable.clean(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "step-00000004"]
    assert (tmp_path / "step-00000004/old").exists()
    assert not (tmp_path / "other/old").exists()


def test_nan_is_not_json(tmp_path: Path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        durable.write_json(tmp_path / "x.json", {"wer": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_files_are_readable_to_whom_the_umask_allows(tmp_path: Path):
    (tmp_path / "x").write_text("x")
    (tmp_path / "x").chmod(0o600)
    durable.sync_file(tmp_path / "x")
    assert (tmp_path / "x").stat().st_mode & 0o444 == 0o444


def test_a_full_disk_is_one_line():
    with (
        pytest.raises(DiskError, match="could not write somewhere: No space left on device"),
        durable.disk_errors(Path("somewhere")),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_removing_a_folder_leaves_nothing_and_none_is_no_error(tmp_path: Path):
    (tmp_path / "a/b").mkdir(parents=True)
    assert durable.remove(tmp_path / "a")
    assert not durable.remove(tmp_path / "a")
    assert list(tmp_path.iterdir()) == []
