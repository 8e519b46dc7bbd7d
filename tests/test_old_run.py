"""A run directory written before the package had wings: it resumes, and its best/ is scored, as by its own code.

The archive holds a model of 12,000 weights, six spoken sentences and a run of commit 2214b45. That run was killed after
step 3 of 4, with a checkpoint of step 2. The expected figures are those of the same commit, resuming a copy of it.
"""

import hashlib
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import digest, metrics, run

DATA = Path(__file__).parent / "data"
EXPECTED: dict[str, Any] = json.loads((DATA / "run-before-the-wings.json").read_text(encoding="utf-8"))
SETTINGS = {
    "run_dir": "run",
    "steps": 4,
    "model.name": "model",
    "model.dropout": 0.1,
    "data.path": "data/train.parquet",
    "data.language": "be",
    "batch.size": 2,
    "batch.per_device": 1,
    "optim.lr": 1e-3,
    "schedule.warmup": 1,
    "log.every": 1,
    "eval.path": "data/validation.parquet",
    "eval.every": 2,
    "eval.max_new_tokens": 8,
    "save.every": 2,
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The model, the data and the run, as they lay beside each other."""
    with tarfile.open(DATA / "run-before-the-wings.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path


def processor() -> str:
    """A digest of the kind of this machine's processor, "" where it is not known."""
    names = ("model name", "cpu family", "model", "stepping", "flags")
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    facts = {name.strip(): value.strip() for line in reversed(lines) for name, _, value in [line.partition(":")]}
    return hashlib.sha256("|".join(facts.get(name, "") for name in names).encode()).hexdigest()[:16]


@pytest.mark.long
def test_a_run_of_the_code_before_resumes_with_the_same_figures(folder: Path):
    """Bits depend on the processor: the weights are compared on the same kind of it alone, the losses everywhere."""
    ended = run(
        "train.py", *[text for name, value in SETTINGS.items() for text in (f"--{name}", str(value))], cwd=folder
    )
    assert ended.code == 0, ended.out + ended.err
    rate = EXPECTED["lr_at_step_2"]
    assert f"LR at step 2: saved {rate}, now {rate}" in ended.out
    rows = metrics(folder / "run")
    for name in ("loss", "grad_norm"):
        for step, value in EXPECTED[name].items():
            assert rows[int(step)][name] == pytest.approx(value, rel=1e-6)
    assert json.loads((folder / "run/best.json").read_text()) == EXPECTED["best"]
    if processor() == EXPECTED["processor"]:
        assert {part: digest(folder / "run", part) for part in EXPECTED["sha256"]} == EXPECTED["sha256"]


@pytest.mark.long
def test_evaluate_scores_the_best_model_of_the_code_before(folder: Path):
    arguments = ["--model", "run", "--data.path", "data/validation.parquet", "--data.language", "be"]
    ended = run("evaluate.py", *arguments, "--decoding.max_new_tokens", "8", "--out", "scored", cwd=folder)
    assert ended.code == 0, ended.out + ended.err
    summary = json.loads((folder / "scored/summary.json").read_text())
    assert {name: summary[name] for name in ("wer", "cer")} == EXPECTED["evaluated"]
    rows = map(json.loads, (folder / "scored/predictions.jsonl").read_text(encoding="utf-8").splitlines())
    assert [row["hyp"] for row in rows] == EXPECTED["hypotheses"]
