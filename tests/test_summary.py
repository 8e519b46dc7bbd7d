"""The file summary.json and what the library `evaluate` adds to it."""

import json
import math
import subprocess
from pathlib import Path

import pytest

from whisper_ft.scoring.summary import save_summary


@pytest.mark.parametrize("place", ["a repository", "a repository without a commit", "no repository", "no git"])
def test_the_summary_is_saved_whole_and_quietly_under_the_name_asked_for(tmp_path: Path, place, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    if "repository" in place and place != "no repository":
        subprocess.run(["git", "init", "-q"], check=True)
    if place == "a repository":
        author = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
        subprocess.run(["git", *author, "commit", "-q", "--allow-empty", "-m", "first"], check=True)
    if place == "no git":
        monkeypatch.setenv("PATH", str(tmp_path))
    path = tmp_path / "out" / "summary.json"
    for wer in (0.5, None):  # the second takes the place of the first
        save_summary(path, {"wer": wer, "model": "мадэль"})
    saved = json.loads(path.read_text(encoding="utf-8"))
    assert (saved["wer"], saved["model"]) == (None, "мадэль")
    assert {"_timestamp", "_evaluate_version", "_python_version", "_interpreter_path"} <= saved.keys()
    assert (saved["_git_commit_hash"] is not None) == (place == "a repository")
    assert [entry.name for entry in path.parent.iterdir()] == ["summary.json"]
    assert capfd.readouterr().err == ""


def test_a_summary_that_is_not_json_is_refused_before_anything_is_written(tmp_path: Path):
    path = tmp_path / "summary.json"
    path.write_text("before")
    with pytest.raises(ValueError):
        save_summary(path, {"wer": math.nan})
    assert path.read_text() == "before"
    assert [entry.name for entry in tmp_path.iterdir()] == ["summary.json"]
