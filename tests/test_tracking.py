"""Logs: best effort, and never spoiled by what a kill or a full disk left."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.conftest import ROOT, Trainer, logged, metrics
from whisper_ft.checkpoint.format import newest_record
from whisper_ft.checkpoint.state import Counts, TrainState
from whisper_ft.config.data import SourceConfig
from whisper_ft.data.audio.decode import decode
from whisper_ft.data.sources import open_source
from whisper_ft.data.types import Rejected
from whisper_ft.tracking.performance import memory_gb
from whisper_ft.tracking.tracker import Tracker


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
    row = Rejected("a#1", "silent", "every sample is zero")
    (tmp_path / "quarantine.jsonl").write_bytes('{"id": "словы'.encode()[:-1])  # cut within a letter
    for _ in range(2):
        tracker = Tracker(tmp_path, 10, enabled=True)
        tracker.quarantine([row])
        tracker.quarantine([row, Rejected("a#2", "silent", "")])
    listed = [json.loads(line) for line in (tmp_path / "quarantine.jsonl").read_bytes().splitlines()[1:]]
    assert [(row["id"], row["reason"]) for row in listed] == [("a#1", "silent"), ("a#2", "silent")]


def test_a_log_that_cannot_be_written_is_said_once_and_stops_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    tracker = Tracker(tmp_path / "nowhere", 10, enabled=True)
    for step in range(3):
        tracker.record({"step": step})
    assert capfd.readouterr().err.count("training goes on") == 1


def test_only_the_main_process_writes(tmp_path: Path):
    tracker = Tracker(tmp_path, 10, enabled=False)
    tracker.record({"step": 1})
    tracker.quarantine([Rejected("a#1", "silent", "")])
    assert list(tmp_path.iterdir()) == []


RATE = 16_000  # Hz


def samples_of(folder: Path) -> int:
    """Samples in all utterances of a data set."""
    source = open_source(SourceConfig(path=str(folder)))
    rows = [row for chunk in range(len(source.rows)) for row in source.read(chunk)]
    return sum(len(decode(row.audio, RATE, 30.0, row.offset, row.duration)) for row in rows)


@pytest.mark.matrix
@pytest.mark.parametrize("processes", [1, 2])
def test_the_audio_of_one_epoch_is_counted_to_the_sample_also_over_a_kill(train: Trainer, corpus: Path, processes: int):
    """Each row is trained on once, so the count is the length of the corpus."""
    options = {"epochs": 1, "steps": "null", "eval__every": 0, "save__every": 3, "data__workers": 2}
    train.interrupt("one", logged(7), signal.SIGKILL, processes, **options)
    run_dir = train("one", processes, **options)
    record = newest_record(run_dir / "checkpoints")
    assert record is not None
    counted = record.state.counts.audio_samples
    assert counted == samples_of(corpus / "train")
    assert metrics(run_dir)[13]["audio_hours"] == round(counted / RATE / 3600, 6)


def test_a_state_from_before_the_audio_was_counted_does_not_invent_a_count():
    fields = {name: value for name, value in TrainState(step=5).to_json().items() if name != "audio_samples"}
    state = TrainState.from_json(fields)
    counts = Counts(utterances=1, label_tokens=1, audio_samples=7)
    assert state.after_step(counts, applied=True).counts.audio_samples is None
    assert TrainState().after_step(counts, applied=True) == TrainState(step=1, counts=counts)


MEMORY = """
import torch
from whisper_ft.tracking.performance import memory_gb
before = memory_gb(torch.device("cpu"))
held = torch.ones(75_000_000)  # 0.3 GB
print(memory_gb(torch.device("cpu")) - before, held.sum())
"""


@pytest.mark.long
def test_the_memory_of_a_process_is_what_it_holds():
    # In a new process, because a process of many tests may return memory to the system between the two readings.
    done = subprocess.run([sys.executable, "-c", MEMORY], cwd=ROOT, capture_output=True, text=True, check=True)
    assert 0.25 < float(done.stdout.split()[0]) < 0.4


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_memory_of_a_gpu_is_the_most_that_it_ever_held():
    device = torch.device("cuda")
    del_me = torch.ones(250_000_000, device=device)  # 1 GB
    del del_me
    assert memory_gb(device) >= 1.0


def test_without_a_standard_output_a_run_is_told_in_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sys.stdout", None)  # as Python sets it after `>&-`
    tracker = Tracker(tmp_path, 10, enabled=True)
    tracker.say("a word")
    tracker.record({"step": 1})
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 1}\n'


def test_what_looks_like_an_emoji_is_printed_as_it_is(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    Tracker(tmp_path, 10, enabled=True).say("unusable: corpus:x:9: [bold] too_long")
    assert capfd.readouterr().out == "unusable: corpus:x:9: [bold] too_long\n"
