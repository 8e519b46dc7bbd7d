"""One way in: `python -m whisper_ft COMMAND`, its help, its refusals, and how little they cost."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from whisper_ft import COMMANDS
from whisper_ft.__main__ import main

QUICK_SECONDS = 1.0  # of processor time, for --help and for a refusal


def processor_time(*argv: str) -> tuple[int, str, float]:
    """Exit code, output and processor time in seconds of a program."""
    before = os.times()
    done = subprocess.run([sys.executable, *argv], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    after = os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return done.returncode, done.stdout + done.stderr, used


def test_the_help_lists_every_command_with_a_line(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("usage: python -m whisper_ft COMMAND")
    for name, text in COMMANDS.items():
        assert [line for line in lines if line.split() == [name, *text.split()]]


@pytest.mark.parametrize(
    ("argv", "fact"),
    [(["doktor"], "'doctor'"), (["xyz"], ", ".join(COMMANDS)), ([], ", ".join(COMMANDS)), (["--hepl"], "--hepl")],
)
def test_a_command_that_is_not_there_is_refused_in_one_line(
    argv: list[str], fact: str, capsys: pytest.CaptureFixture[str]
):
    assert main(argv) == 2
    out, error = capsys.readouterr()
    assert (out, error.count("\n")) == ("", 1)
    assert fact in error


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_answers_help_quickly_under_its_new_and_its_old_name(name: str):
    """`whisper_ft.checkpoint` is a wing, too: its old name imports the wing, so its time is not limited."""
    code, text, seconds = processor_time("-m", "whisper_ft", name, "--help")
    assert (code, text.startswith(f"usage: python -m whisper_ft {name} ")) == (0, True)
    assert seconds < QUICK_SECONDS
    assert processor_time("-m", f"whisper_ft.{name}", "--help")[:2] == (0, text)


@pytest.mark.parametrize(
    ("argv", "code", "pattern"),
    [
        (["train.py", "--help"], 0, r"usage: train\.py "),
        (["evaluate.py", "--help"], 0, r"usage: evaluate\.py "),
        (["train.py", "--optim.lrr", "1"], 2, r"error: .*'optim\.lrr'.*'optim\.lr'"),
        (["train.py", "--steps", "many"], 2, r"error: --steps many"),
        (["evaluate.py", "--modle", "x"], 2, r"error: .*'modle'.*'model'"),
        (["-m", "whisper_ft", "doctor", "--data.pathh", "x"], 2, r"error: .*'data\.pathh'.*'data\.path'"),
        (["-m", "whisper_ft", "prepare", "--data.pathh", "x"], 2, r"error: .*'data\.pathh'.*'data\.path'"),
        (["-m", "whisper_ft", "replay", "--stepp", "1"], 2, r"error: .*--step"),
        (["-m", "whisper_ft", "transcribe", "runs/x", "a.wav", "--too", "srt"], 2, r"error: .*--too.*--to\b"),
        (
            ["-m", "whisper_ft", "pseudolabel", "runs/x", "--data.pathh", "x"],
            2,
            r"error: .*'data\.pathh'.*'data\.path'",
        ),
    ],
)
def test_help_and_a_misspelt_setting_are_answered_before_torch_is_imported(argv: list[str], code: int, pattern: str):
    ended, text, seconds = processor_time(*argv)
    assert (ended, bool(re.match(pattern, text))) == (code, True), text
    assert code == 0 or text.count("\n") == 1
    assert seconds < QUICK_SECONDS


def test_a_refused_command_line_writes_nothing(tmp_path: Path):
    done = subprocess.run(
        [sys.executable, ROOT / "train.py", "--optim.lrr", "1"], cwd=tmp_path, capture_output=True, check=False
    )
    assert (done.returncode, list(tmp_path.iterdir())) == (2, [])
