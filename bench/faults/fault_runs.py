"""Faulty runs: the settings and data of each, and the kinds of findings that name its fault."""

import json
import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from bench.faults import fault_data
from bench.faults.fault_data import changed, clips_of, silent_clips, write_clips
from whisper_ft.cli.demo.model import Shape, write_micro_whisper

WIDTH = 64  # of the micro Whisper
BASE_STEPS, STEPS = 600, 100  # updates of the pre-trained model, and of a run
BATCH = 8  # utterances in a step
RATE, BASE_RATE = 1e-3, 3e-3
SIGNS = ".!?,"  # suppressed in the run that may not write them


@dataclass(frozen=True)
class Place:
    """Folder of the runs of one language and seed."""

    folder: Path
    language: str
    seed: int

    @property
    def corpus(self) -> Path:
        """Corpus that the runs train on."""
        return fault_data.corpus(self.folder / "corpus", self.language, self.seed + 1)

    @property
    def data(self) -> Path:
        """Folder for changed copies of the corpus."""
        return self.folder / "data"


@dataclass(frozen=True)
class FaultRun:
    """One run, and the kinds of which any names its fault."""

    name: str
    kinds: frozenset[str]
    """Empty for a healthy run."""
    settings: Callable[[Place], Mapping[str, Any]] = field(default=lambda place: {})


def run(name: str, kinds: str = "", **settings: Any) -> FaultRun:
    """Describe a run by settings that do not depend on its place; `optim__lr` means optim.lr."""
    values = {key.replace("__", "."): value for key, value in settings.items()}
    return FaultRun(name, frozenset(kinds.split()), lambda place: values)


def _other_language(place: Place) -> str:
    """Return a language whose letters differ from those of the corpus."""
    return {"be": "ru", "sv": "en", "en": "pl", "as": "bn"}[place.language]


def _suppressing(place: Place) -> dict[str, Any]:
    """Return the settings of a run whose start model may not write the usual signs at the end of a sentence."""
    model = place.folder / "suppressing"
    if not model.exists():
        shutil.copytree(base_model(place), model)
        vocabulary = json.loads((model / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
        tokens = [vocabulary[token] for sign in SIGNS for token in (sign, f"Ġ{sign}") if token in vocabulary]
        generation = json.loads((model / "generation_config.json").read_text())
        (model / "generation_config.json").write_text(json.dumps(generation | {"suppress_tokens": tokens}))
    return {"model.name": model, "model.suppress": "keep"}


def _of(name: str, change: Any) -> Callable[[Place], Path]:
    def data(place: Place) -> Path:
        folder = place.data / name
        if not folder.exists():
            write_clips(changed(clips_of(place.corpus / "train"), change), folder)
        return folder

    return data


def _noisy_validation(place: Place) -> dict[str, Any]:
    clips = changed(clips_of(place.corpus / "validation"), fault_data.noisy)
    return {"eval.path": write_clips(clips, place.data / "noisy")}


def _few_rows(place: Place) -> dict[str, Any]:
    return {"data.path": write_clips(clips_of(place.corpus / "train")[:20], place.data / "few")}


def _leaking(place: Place) -> dict[str, Any]:
    clips = clips_of(place.corpus / "train")[:10] + clips_of(place.corpus / "validation")[10:]
    return {"eval.path": write_clips(clips, place.data / "leaking")}


def _untrained(place: Place) -> dict[str, Any]:
    """Return the settings of a run that learns from random weights."""
    base_model(place)
    return {"model.name": place.folder / "untrained"}


def _silence(place: Place) -> dict[str, Any]:
    path = write_clips(silent_clips(), place.data / "silence")
    return {"eval.sets": json.dumps([{"name": "silence", "path": str(path)}])}


RUNS = (
    run("rate_too_high", "rate_too_high", optim__lr=0.05),
    run("rate_far_too_high", "rate_too_high", optim__lr=1.0),
    FaultRun(
        "rate_too_low",
        frozenset({"rate_too_low"}),
        lambda p: _untrained(p) | {"optim.lr": 1e-5, "steps": 200, "eval.every": 50},
    ),
    FaultRun(
        "too_few_steps",
        frozenset({"too_few_steps"}),
        lambda p: _untrained(p) | {"optim.lr": 3e-3, "steps": 60, "eval.every": 20},
    ),
    run("warm_up_too_long", "warm_up_too_long", schedule__warmup=0.95, optim__lr=3e-4),
    FaultRun("overfitting", frozenset({"overfitting"}), _few_rows),
    run("labels_convention", "labels_convention", data__normalizer="golden"),
    FaultRun("wrong_language", frozenset({"wrong_language"}), lambda p: {"data.language": _other_language(p)}),
    FaultRun("suppressed_characters", frozenset({"suppressed_characters"}), _suppressing),
    FaultRun("loops_on_silence", frozenset({"loops"}), _silence),
    FaultRun(
        "truncated_labels",
        frozenset({"truncated_labels"}),
        lambda p: {"data.path": _of("half", fault_data.with_half_text)(p)},
    ),
    FaultRun("other_domain", frozenset({"other_domain"}), _noisy_validation),
    FaultRun("leakage", frozenset({"leakage"}), _leaking),
    run("adapter_scale", "adapter_scale", adapter__kind="lora", adapter__r=8, adapter__alpha=0.08),
    run("early_end", "early_end", eval__patience=1, eval__every=4, eval__min_delta=0.05),
    FaultRun(
        "unusable_rows",
        frozenset({"unusable_rows"}),
        lambda p: {"data.path": _of("damaged", fault_data.damaged)(p)},
    ),
    run("batch_too_small", "batch_too_small", batch__size=1, optim__lr=3e-3),
    run("healthy"),
    run("healthy_long", steps=180, model__dropout=0.1, seed=7),
    run("healthy_adapter", adapter__kind="lora", adapter__r=8, adapter__alpha=16, optim__lr=5e-3, steps=120),
)
"""All runs; the last ones are healthy."""


def base_settings(place: Place) -> dict[str, Any]:
    """Return the settings that all runs of a place share."""
    return {
        "steps": STEPS,
        "seed": place.seed + 1,
        "model.name": base_model(place),
        "data.path": place.corpus / "train",
        "data.language": place.language,
        "batch.size": BATCH,
        "batch.per_device": BATCH,
        "optim.lr": RATE,
        "schedule.warmup": 0.1,
        "log.every": 2,
        "log.screen": "quiet",
        "eval.path": place.corpus / "validation",
        "eval.every": 30,
        "eval.max_new_tokens": 60,
        "save.every": 0,
    }


def base_model(place: Place) -> Path:
    """Return the model from which the runs of a place start: it has learned a part of another corpus."""
    untrained, base = place.folder / "untrained", place.folder / "base"
    if not (base / "final").exists():
        write_micro_whisper(untrained, Shape(place.language, d_model=WIDTH, seed=place.seed))
        first = fault_data.corpus(place.folder / "first", place.language, place.seed, fault_data.BASE_TRAIN)
        settings = {
            "steps": BASE_STEPS,
            "model.name": untrained,
            "model.dropout": 0.1,
            "data.path": first / "train",
            "data.language": place.language,
            "batch.size": BATCH,
            "optim.lr": BASE_RATE,
            "eval.every": 0,
            "save.every": 0,
            "log.screen": "quiet",
        }
        train(base, settings)
    return base / "final"


def train(run_dir: Path, settings: Mapping[str, Any]) -> int:
    """Train in a forked process, which has all imports already, and return the exit code.

    The output goes to a file beside the run.
    """
    import train as program  # the file at the root; imported before the fork

    arguments = [text for name, value in settings.items() for text in (f"--{name}", str(value))]
    sys.stdout.flush()
    if not (pid := os.fork()):
        _become(program.main, run_dir, arguments)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _become(program: Callable[[], NoReturn], run_dir: Path, arguments: Sequence[str]) -> NoReturn:
    """Run train.py in this process, which ends with it."""
    with run_dir.with_suffix(".log").open("w") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    sys.argv = ["train.py", "--run_dir", str(run_dir), *arguments]
    program()


def trained(one: FaultRun, place: Place) -> Path:
    """Train a run if it is not there yet, and return its directory. A run may end with an error, as a fault."""
    run_dir = place.folder / one.name
    if not (run_dir / "status.json").exists():
        place.folder.mkdir(parents=True, exist_ok=True)
        train(run_dir, base_settings(place) | dict(one.settings(place)))
    return run_dir
