"""The demo keeps what it promises: from a bare clone to a model that writes what it hears."""

import json
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT, environment


@pytest.mark.matrix
def test_make_demo_learns_sentences_it_has_never_seen(tmp_path: Path):
    """All of `make demo`, in another folder than its own: WER on the test set."""
    variables = environment(1)
    variables.pop("OMP_NUM_THREADS")  # as a user's shell has it
    folders = [f"DEMO_DATA={tmp_path}/data", f"DEMO_RUN={tmp_path}/run"]
    settings = {"model.name": "data/micro-whisper", "data.path": "data/be/train", "eval.path": "data/be/validation"}
    paths = " ".join(f"--{name} {tmp_path}/{path}" for name, path in settings.items())
    done = subprocess.run(
        ["make", "demo", *folders, f"DEMO_TRAIN={paths}"],
        cwd=ROOT,
        env=variables,
        capture_output=True,
        text=True,
        timeout=1800,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    summary = json.loads((tmp_path / "run/test/summary.json").read_text())
    assert summary["utterances"] == 200
    assert summary["wer"] <= 0.1
    assert "report are in" in done.stdout
