"""What an interrupted evaluation leaves, and who may go on with it."""

import json
from pathlib import Path

from whisper_ft.decoding.resume_log import ResumeLog
from whisper_ft.scoring.scores import Prediction

JOB = {"model": "abc", "source": {"text_column": "sentence"}}


def said(name: str) -> Prediction:
    return Prediction(name, "так \ud83d", "да", 1.0, 3)  # half a character, as hostile data has it


def test_what_was_kept_is_known_at_the_next_start_whatever_the_number_of_processes(tmp_path: Path):
    for rank in range(3):
        ResumeLog(tmp_path, rank, ResumeLog.open(tmp_path, JOB)).keep(rank, said(f"row-{rank}"))
    assert ResumeLog.open(tmp_path, JOB) == {rank: said(f"row-{rank}") for rank in range(3)}
    ResumeLog.close(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_is_of_another_job_is_not_used(tmp_path: Path):
    ResumeLog(tmp_path, 0, ResumeLog.open(tmp_path, JOB)).keep(0, said("row-0"))
    assert ResumeLog.open(tmp_path, {**JOB, "source": {"text_column": "other"}}) == {}
    assert ResumeLog.open(tmp_path, JOB) == {}, "and it is gone"


def test_a_line_that_a_kill_cut_spoils_neither_the_one_before_nor_the_one_after(tmp_path: Path):
    parts = ResumeLog(tmp_path, 0, ResumeLog.open(tmp_path, JOB))
    parts.keep(0, said("row-0"))
    with (tmp_path / ".parts/rank-0.jsonl").open("a") as file:
        file.write('{"index": 1, "prediction": {"id": "ro')
    parts.keep(2, said("row-2"))
    assert list(ResumeLog.open(tmp_path, JOB)) == [0, 2]


def test_what_another_version_wrote_is_transcribed_again(tmp_path: Path):
    ResumeLog(tmp_path, 0, ResumeLog.open(tmp_path, JOB)).keep(0, said("row-0"))
    line = json.dumps({"index": 1, "prediction": {"id": "row-1", "mood": "good"}})
    with (tmp_path / ".parts/rank-0.jsonl").open("a") as file:
        file.write(f"{line}\n")
    assert list(ResumeLog.open(tmp_path, JOB)) == [0]
