"""Arms of `make real`: the unmodified model, the community's recipe, and train.py, trained for the same minutes."""

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.log import logged_steps
from bench.real.inputs import Inputs, Set
from bench.real.recipe import Recipe
from bench.rounds import ROOT

OURS = {
    "optim.lr": "3e-5",  # for base; 1e-5 is for small
    "schedule.kind": "linear",
    "schedule.warmup": "0.1",
    "eval.every": "0",
    "log.every": "1",
}
KEPT = (
    *("wer", "cer", "eval_loss", "utterances", "audio_seconds", "words_on_empty_references", "runaway"),
    *("deletion_rate", "late_deletions", "timestamps"),
)
"""Figures of a summary that are kept; the last three are those of long recordings."""
CALIBRATION_STEPS = 3  # updates; the first one is left out, because it allocates memory


class ArmError(Exception):
    """A program that an arm started has failed."""


@dataclass(frozen=True)
class Extent:
    """Extent of the training, the same for both trained arms."""

    minutes: float
    batch: int
    passes: int
    """Forward passes per update."""
    english_utterances: int
    threads: int

    def steps(self, seconds_per_update: float) -> int:
        """Return the number of updates that fill the minutes."""
        return max(round(60 * self.minutes / seconds_per_update), 1)


def run(arguments: Sequence[str], log: Path) -> str:
    """Run a program of this project, and return its output, which is also in `log`. Raises ArmError if it fails."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w", encoding="utf-8") as file:
        done = subprocess.run([sys.executable, *arguments], cwd=ROOT, stdout=file, stderr=subprocess.STDOUT)
    text = log.read_text(encoding="utf-8")
    if done.returncode:
        last = text.strip().splitlines()[-1:] or ["no output"]
        raise ArmError(f"{arguments[0]} ended with {done.returncode}: {last[0]}; {log} has the rest")
    return text


def prepare(train: Set, out: Path) -> None:
    """Convert the training set to parquet with the columns audio and sentence, which both programs read."""
    run(["-m", "whisper_ft", "prepare", *train.arguments(), "--out", str(out)], out.with_suffix(".log"))


def seconds_of_recipe(recipe: Recipe) -> list[float]:
    """Train by the recipe. Returns the seconds of each update."""
    out = Path(recipe.out)
    shutil.rmtree(out, ignore_errors=True)
    text = run(["-m", "bench.real.recipe", json.dumps(asdict(recipe))], out.with_suffix(".log"))
    return list(json.loads(text.strip().splitlines()[-1])["seconds"])


def rows_of_ours(
    inputs: Inputs, data: Path, out: Path, extent: Extent, steps: int, changed: Mapping[str, str] | None = None
) -> list[dict[str, Any]]:
    """Train by train.py, or continue an interrupted run. Returns the logged row of each update.

    Parameters
        changed: settings in place of those of `make real`.
    """
    settings = {
        **OURS,
        "run_dir": str(out),
        "steps": str(steps),
        "model.name": inputs.model,
        "data.path": str(data),
        "data.language": inputs.language,
        "batch.size": str(extent.batch),
        "batch.per_device": str(extent.batch // extent.passes),
        "save.every": "10",
        **(changed or {}),
    }
    run(
        ["train.py", *(text for name, value in settings.items() for text in (f"--{name}", value))],
        out.with_suffix(".log"),
    )
    return logged_steps(out)


def seconds_of_ours(
    inputs: Inputs, data: Path, out: Path, extent: Extent, steps: int, changed: Mapping[str, str] | None = None
) -> list[float]:
    """Train as `rows_of_ours` does. Returns the seconds of each logged update."""
    rows = rows_of_ours(inputs, data, out, extent, steps, changed)
    return [extent.batch / row["utterances_per_second"] for row in rows]


def per_update(seconds: Sequence[float]) -> float:
    """Return the mean seconds of the updates after the first one."""
    later = seconds[1:] or seconds
    return sum(later) / len(later)


def scores(
    model: str, inputs: Inputs, silence: Path, out: Path, extent: Extent, *, long: bool = False
) -> dict[str, Any]:
    """Score a model on the test set, on English, and on sound without speech.

    With `long`, recordings that are joined from the test set are scored in place of English.
    """
    without_speech = Set({"path": str(silence), "language": inputs.language})
    sets: dict[str, tuple[Set, int | None]] = {"target": (inputs.test, None), "silence": (without_speech, None)}
    if long:
        sets["long"] = (inputs.test, None)
    if inputs.english is not None and not long:
        sets["english"] = (inputs.english, extent.english_utterances)
    result = {}
    for name, (data, most) in sets.items():
        folder = out / name
        limits: list[str] = [] if most is None else ["--max_utterances", str(most)]
        limits += ["--long", "true"] if name == "long" else ["--decoding.with_loss", "true"]
        common = ["--model", model, "--sound", "false"]
        if not (folder / "summary.json").exists():  # else the set was scored before an interruption
            run(["evaluate.py", *common, *data.arguments(), *limits, "--out", str(folder)], out / f"{name}.log")
        summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
        result[name] = {key: summary[key] for key in KEPT if key in summary}
    return result
