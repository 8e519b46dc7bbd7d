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

NEEDED = ("generation_config.json", "processor_config.json", "tokenizer.json")  # besides weights and their config


@dataclass(frozen=True)
class ModelToPublish:
    """An exported model of a run: best/, final/ or average/, or an adapter: best-adapter/ and so on."""

    what: What
    folder: Path
    steps: tuple[int, ...]
    """Training steps of the weights. There are several if the model is an average."""
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
    def origin(self) -> str:
        """Origin of the weights in words, for use in a sentence."""
        if self.what.startswith("average"):
            return f"the mean of the weights of steps {', '.join(f'{step:,}' for step in self.steps)}"
        return f"the {'best evaluated' if self.what.startswith('best') else 'last'} step, {self.steps[0]:,}"


def find_model(run: Path, what: What) -> ModelToPublish:
    """Find a model of a run, and check that it is complete. Raises UsageError if it is missing or incomplete."""
    paths = RunDir(run)
    folder = run / what
    config, weights = (ADAPTER_CONFIG, ADAPTER_WEIGHTS) if what.endswith("-adapter") else ("config.json", WEIGHTS)
    if not (folder / config).is_file():
        there = [name for name in WHAT if (run / name / "config.json").is_file() or is_adapter(run / name)]
        instead = f"publish --what {' or '.join(there)}" if there else "it has none of best/, final/, average/ yet"
        raise UsageError(f"{run}: there is no model in {what}/; {instead}")
    if missing := [name for name in (*NEEDED, weights) if not (folder / name).is_file()]:
        raise UsageError(f"{folder}: {', '.join(missing)} is missing; resume the run, which writes the model again")
    try:
        with safe_open(folder / weights, "pt"):  # checks that the file is as long as its header says
            pass
        generation = json.loads((folder / "generation_config.json").read_bytes())
        seconds = json.loads((folder / "processor_config.json").read_bytes())["feature_extractor"]["chunk_length"]
        steps, recorded = _steps(paths, folder, what)
    except (SafetensorError, OSError, ValueError, LookupError) as error:
        raise UsageError(f"{folder}: cannot be read ({error}); resume the run, which writes the model again") from error
    return ModelToPublish(what, folder, steps, recorded, generation, float(seconds))


def _steps(run: RunDir, folder: Path, what: What) -> tuple[tuple[int, ...], tuple[str, float] | None]:
    """Read steps, metric and value: from best.json, or from the README.md that the run wrote into the folder.

    Raises ValueError or OSError if they cannot be read.
    """
    if what.startswith("best"):
        if run.published is None:
            raise ValueError("there is no best.json beside it")
        return (run.published.step,), (run.published.metric, run.published.value)
    text = (folder / "README.md").read_text(encoding="utf-8")
    steps = tuple(int(number) for number in re.findall(r"\d+", text.splitlines()[0]))
    if not steps:
        raise ValueError("its README.md names no step")
    rate = re.search(r"^(\w+) on the held-out set: ([\d.e-]+)$", text, re.MULTILINE)
    return steps, (rate[1], float(rate[2])) if rate else None
