"""Choice of the model of a run that is published: its folder, the steps of its weights, and its recorded figure."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from whisper_ft.cli.publish.publish_arguments import WHAT, What
from whisper_ft.models.adapters.adapter_config import ADAPTER_CONFIG, ADAPTER_WEIGHTS, is_adapter
from whisper_ft.models.export.hf import WEIGHTS
from whisper_ft.runtime.errors import UsageError
from whisper_ft.training.directory import RunDir
from whisper_ft.training.mixture_scores import RECORD

NEEDED = ("generation_config.json", "processor_config.json", "tokenizer.json")  # besides weights and their config


@dataclass(frozen=True)
class ModelToPublish:
    """An exported model of a run: best/, final/, average/ or interpolated/, or an adapter: best-adapter/ and so on."""

    what: What
    folder: Path
    steps: tuple[int, ...]
    """Training steps of the weights. There are several if the model is an average."""
    origin: str
    """Origin of the weights in words, for use in a sentence."""
    recorded: tuple[str, float] | None
    """Metric and value that the run recorded for this model; None if there are none."""
    generation: Mapping[str, Any]
    """Generation config of the model, as a mapping."""
    window_seconds: float

    @property
    def is_adapter(self) -> bool:
        """True for an adapter, which needs its base."""
        return self.what.endswith("-adapter")

    @property
    def weights(self) -> Path:
        """File of the weights."""
        return self.folder / (ADAPTER_WEIGHTS if self.is_adapter else WEIGHTS)

    @property
    def is_of_one_step(self) -> bool:
        """True for the weights of one step, whose figures the run has recorded; False for averages and mixtures."""
        return self.what.startswith(("best", "final"))


def find_model(run: Path, what: What) -> ModelToPublish:
    """Find a model of a run, and check that it is complete. Raises UsageError if it is missing or incomplete."""
    paths = RunDir(run)
    folder = run / what
    config, weights = (ADAPTER_CONFIG, ADAPTER_WEIGHTS) if what.endswith("-adapter") else ("config.json", WEIGHTS)
    if not (folder / config).is_file():
        there = [name for name in WHAT if (run / name / "config.json").is_file() or is_adapter(run / name)]
        instead = f"publish --what {' or '.join(there)}" if there else "it has no model yet"
        raise UsageError(f"{run}: there is no model in {what}/; {instead}")
    if missing := [name for name in (*NEEDED, weights) if not (folder / name).is_file()]:
        raise UsageError(f"{folder}: {', '.join(missing)} is missing; resume the run, which writes the model again")
    try:
        with safe_open(folder / weights, "pt"):  # checks that the file is as long as its header says
            pass
        generation = json.loads((folder / "generation_config.json").read_bytes())
        seconds = json.loads((folder / "processor_config.json").read_bytes())["feature_extractor"]["chunk_length"]
        steps, origin, recorded = _steps(paths, folder, what)
    except (SafetensorError, OSError, ValueError, LookupError) as error:
        raise UsageError(f"{folder}: cannot be read ({error}); resume the run, which writes the model again") from error
    return ModelToPublish(what, folder, steps, origin, recorded, generation, float(seconds))


Origin = tuple[tuple[int, ...], str, tuple[str, float] | None]
"""Steps of the weights, their origin in words, and metric and value on the held-out set, None if unknown."""


def _steps(run: RunDir, folder: Path, what: What) -> Origin:
    """Read the origin from best.json, from interpolation.json, or from the README.md that the run wrote.

    Raises ValueError, LookupError or OSError if it cannot be read.
    """
    if what == "interpolated":
        return _mixed(run, json.loads((folder / RECORD).read_bytes()))
    if what.startswith("best"):
        if run.published is None:
            raise ValueError("there is no best.json beside it")
        step = run.published.step
        return (step,), f"the best evaluated step, {step:,}", (run.published.metric, run.published.value)
    text = (folder / "README.md").read_text(encoding="utf-8")
    steps = tuple(int(number) for number in re.findall(r"\d+", text.splitlines()[0]))
    if not steps:
        raise ValueError("its README.md names no step")
    listed = ", ".join(f"{step:,}" for step in steps)
    origin = f"the mean of the weights of steps {listed}" if what.startswith("average") else f"the last step, {listed}"
    rate = re.search(r"^(\w+) on the held-out set: ([\d.e-]+)$", text, re.MULTILINE)
    return steps, origin, (rate[1], float(rate[2])) if rate else None


def _mixed(run: RunDir, record: Mapping[str, Any]) -> Origin:
    """Return the origin of a mixture. `record` is the content of its interpolation.json."""
    tuned: What = "final" if record["tuned"]["name"].endswith("/final") else "best"
    steps, of_tuned, _ = _steps(run, run.path / tuned, tuned)
    alpha, metric = float(record["alpha"]), str(record["metric"])
    (value,) = (one[metric] for one in record["mixtures"] if one["alpha"] == alpha)
    origin = f"start + {alpha:g} (tuned - start) in each weight, and tuned is {of_tuned}"
    return steps, origin, None if value is None else (metric, float(value))
