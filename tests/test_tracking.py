"""Logs: best effort, and never spoiled by what a kill or a full disk left."""

import json
from pathlib import Path

import pytest

from whisper_ft.tracking import Tracker
from whisper_ft.window import Unusable


@pytest.mark.parametrize("left", ["", '{"step": 1}\n', '{"step": 1}\n{"ste'])
def test_a_line_that_was_cut_does_not_spoil_the_next(tmp_path: Path, left: str):
    (tmp_path / "metrics.jsonl").write_text(left)
    tracker = Tracker(tmp_path, 10, enabled=True)
    tracker.record({"step": 2})
    tracker.record({"step": 3})
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    whole = [json.loads(line)["step"] for line in lines if line.endswith("}")]
    assert whole == [1, 2, 3][-len(whole) :]
    assert len(lines) == len(whole) + left.endswith("ste")


def test_an_unusable_row_is_listed_once_over_several_starts(tmp_path: Path):
    row = Unusable("a#1", "silent", "every sample is zero")
    (tmp_path / "quarantine.jsonl").write_bytes('{"id": "словы'.encode()[:-1])  # cut within a letter
    for _ in range(2):
        tracker = Tracker(tmp_path, 10, enabled=True)
        tracker.quarantine([row])
        tracker.quarantine([row, Unusable("a#2", "silent", "")])
    listed = [json.loads(line) for line in (tmp_path / "quarantine.jsonl").read_bytes().splitlines()[1:]]
    assert [(one["id"], one["reason"]) for one in listed] == [("a#1", "silent"), ("a#2", "silent")]


def test_a_log_that_cannot_be_written_is_said_once_and_stops_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    tracker = Tracker(tmp_path / "nowhere", 10, enabled=True)
    for step in range(3):
        tracker.record({"step": step})
    assert capfd.readouterr().err.count("training goes on") == 1


def test_only_the_main_process_writes(tmp_path: Path):
    tracker = Tracker(tmp_path, 10, enabled=False)
    tracker.record({"step": 1})
    tracker.quarantine([Unusable("a#1", "silent", "")])
    assert list(tmp_path.iterdir()) == []
