"""Predictions that an interrupted evaluation leaves for the next start."""

import json
from pathlib import Path

from whisper_ft.decoding.resume_log import ResumeLog
from whisper_ft.scoring.scores import Prediction

JOB = {"model": "abc", "source": {"text_column": "sentence"}}


def prediction(name: str) -> Prediction:
    return Prediction(name, "так \ud83d", "да", 1.0, 3)  # a lone surrogate


def test_predictions_are_known_at_the_next_start_with_any_number_of_processes(tmp_path: Path):
    for rank in range(3):
        ResumeLog(tmp_path, rank, ResumeLog.open(tmp_path, JOB)).append(rank, prediction(f"row-{rank}"))
    assert ResumeLog.open(tmp_path, JOB) == {rank: prediction(f"row-{rank}") for rank in range(3)}
    ResumeLog.close(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_predictions_of_another_job_are_removed(tmp_path: Path):
    ResumeLog(tmp_path, 0, ResumeLog.open(tmp_path, JOB)).append(0, prediction("row-0"))
    assert ResumeLog.open(tmp_path, {**JOB, "source": {"text_column": "other"}}) == {}
    assert ResumeLog.open(tmp_path, JOB) == {}, "and the old log is removed"


def test_a_line_cut_by_a_kill_damages_no_other_line(tmp_path: Path):
    log = ResumeLog(tmp_path, 0, ResumeLog.open(tmp_path, JOB))
    log.append(0, prediction("row-0"))
    with (tmp_path / ".parts/rank-0.jsonl").open("a") as file:
        file.write('{"index": 1, "prediction": {"id": "ro')
    log.append(2, prediction("row-2"))
    assert list(ResumeLog.open(tmp_path, JOB)) == [0, 2]


def test_a_row_of_another_version_is_transcribed_again(tmp_path: Path):
    ResumeLog(tmp_path, 0, ResumeLog.open(tmp_path, JOB)).append(0, prediction("row-0"))
    line = json.dumps({"index": 1, "prediction": {"id": "row-1", "mood": "good"}})
    with (tmp_path / ".parts/rank-0.jsonl").open("a") as file:
        file.write(f"{line}\n")
    assert list(ResumeLog.open(tmp_path, JOB)) == [0]
