"""The parts of the bench: what is compared with what, each as figures for results.json."""

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from bench import prepare
from bench.machine import gpus, wait_for_quiet
from bench.results import EVALUATION_RATIOS, LOADER_RATIOS, RATE, TRAINING, TRAINING_RATIOS, summary
from bench.rounds import console, repeated, rounds, run
from bench.sizes import BARE, CARD_SIZES, Effort, Size
from bench.tasks import CardTask, Result, TrainingTask, TranscriptionTask, WaysTask, to_argument

TRAINING_CONTENDERS = {
    "limit": ("bench.limit", 0),
    "limit_drawn": ("bench.limit", 0),
    "ours_w0": ("bench.ours", 0),
    "ours_w2": ("bench.ours", 2),
    "trainer_w0": ("bench.trainer", 0),
    "trainer_w2": ("bench.trainer", 2),
}  # module, workers
EVALUATION_CONTENDERS = {
    "plain": "bench.transcribe_plain",
    "ours": "bench.transcribe_ours",
    "pipeline": "bench.transcribe_pipeline",
}
LOADER_CONTENDERS = {"ours": "bench.loader_ours", "trainer": "bench.loader_trainer"}
RUNAWAY = (0.02, 0.15)  # share of rows that never end
RELUCTANCE, HALVINGS = 32.0, 10  # of the end token, in logits: from none of the rows to all it is a short way
MEMORY_COPIES = (1, 10)  # of the training set, transcribed
CARD_PRECISIONS = ("bf16", "fp16")
CARD_WORKERS = 8


@dataclass(frozen=True)
class Bench:
    """Where everything lies, and how thoroughly it is measured."""

    effort: Effort
    threads: int
    data: Path
    scratch: Path

    def task(self, size: Size) -> TrainingTask:
        """The training of a size, with its model and train.py's batches made where they are not."""
        effort, folder = self.effort.for_size(size), self.scratch / size.name
        task = TrainingTask(
            model=str(folder / "model"),
            data=str(self.data / "train"),
            batches=str(folder / "batches.safetensors"),
            scratch=str(folder),
            language=prepare.LANGUAGE,
            batch=size.batch,
            steps=effort.unmeasured_steps + effort.measured_steps,
            unmeasured_steps=effort.unmeasured_steps,
            workers=0,
            learning_rate=size.learning_rate,
        )
        prepare.write_model(size, Path(task.model))
        if not Path(task.batches).exists():
            prepare.write_batches(task)
        return task

    def training(self, size: Size, names: Iterable[str] = TRAINING) -> dict[str, list[Result]]:
        """Every run of some training contenders."""
        task = self.task(size)

        def once(name: str, number: int) -> Result:
            module, workers = TRAINING_CONTENDERS[name]
            own = replace(task, workers=workers, scratch=f"{task.scratch}/training-{name}-{number}")
            if name == "limit_drawn":
                own = replace(own, batches="")
            return run(module, self.threads, to_argument(own))

        return rounds(self.effort, dict.fromkeys(names), once)

    def evaluation(self, size: Size, model: Path | None = None) -> dict[str, Any]:
        """Figures and ratios of several ways to transcribe, and how many texts are not the plain loop's."""
        model = model or self.taught(size)
        texts: dict[str, list[list[str]]] = {name: [] for name in EVALUATION_CONTENDERS}

        def once(name: str, number: int) -> Result:
            result, written = self.transcribed(name, size, model)
            texts[name].append(written)
            return result

        found = summary(rounds(self.effort, EVALUATION_CONTENDERS, once), EVALUATION_RATIOS)

        def differing(name: str) -> int:  # in the round in which most do
            return max(sum(a != b for a, b in zip(texts["plain"][0], one, strict=True)) for one in texts[name])

        return {
            **found,
            "utterances": len(texts["plain"][0]),
            "differing_texts": max(differing("ours"), differing("plain")),
            "differing_texts_of_pipeline": differing("pipeline"),
        }

    def transcribed(self, name: str, size: Size, model: Path) -> tuple[Result, list[str]]:
        """A run of an evaluation contender over the test set, and what it wrote."""
        out, utterances = self.scratch / f"{size.name}-{name}.json", self.effort.for_size(size).test_utterances
        own = TranscriptionTask(str(model), str(self.data / "test"), str(out), prepare.LANGUAGE, size.batch, utterances)
        result = run(EVALUATION_CONTENDERS[name], self.threads, to_argument(own))
        return result, json.loads(out.read_text(encoding="utf-8"))

    def taught(self, size: Size) -> Path:
        """The model that is evaluated: trained until its sentences end."""
        task, steps, data = self.task(size), self.effort.for_size(size).taught_steps, self.data / "train"
        if not steps:  # train.py's, where it has run: the other contenders save none
            trained = next(Path(task.scratch).glob("training-ours*/run/final"), None)
            if trained:
                return trained
            steps = task.steps
        if size.taught_utterances:
            data = prepare.beginning(data, Path(task.scratch, "taught-data"), size.taught_utterances)
        return prepare.teach(size, Path(task.model), data, Path(task.scratch, "taught"), steps)

    def runaway(self, size: Size) -> dict[str, Any]:
        """The same where a few rows never end: a model whose end token is less likely, found by halving.

        In a quick run all rows run away, of a model that has learned next to nothing.
        """
        model, few, most = self.taught(size), 0.0, RELUCTANCE
        for attempt in range(HALVINGS if self.effort.taught_steps else 0):
            middle = (few + most) / 2
            model = prepare.reluctant(self.taught(size), self.scratch / f"reluctant-{attempt}", middle)
            share = self.transcribed("ours", size, model)[0]["runaway_share"]
            console.print(f"  end token less likely by {middle:g}: {share:.1%} of the rows run away")
            if RUNAWAY[0] <= share <= RUNAWAY[1]:
                break
            few, most = (middle, most) if share < RUNAWAY[0] else (few, middle)
        else:
            if self.effort.taught_steps:
                return {"left_out": f"no model was found of which {RUNAWAY[0]:.0%} to {RUNAWAY[1]:.0%} of the rows do"}
        return self.evaluation(size, model)

    def memory(self, size: Size) -> dict[str, Any]:
        """Megabytes that evaluate.py takes at most, by the number of utterances: a set, and the same many times."""
        model, task, found = self.taught(size), self.task(size), {}
        for copies in MEMORY_COPIES:
            data = prepare.repeated(self.data / "train", Path(task.scratch, f"train-{copies}"), copies)
            utterances = self.effort.train_utterances * copies
            out = Path(task.scratch, f"memory-{copies}")
            own = TranscriptionTask(str(model), str(data), str(out), prepare.LANGUAGE, size.batch, utterances)
            found[str(utterances)] = run("bench.memory", self.threads, to_argument(own))
            console.print(f"  evaluation of {utterances:,} utterances: {found[str(utterances)]}")
        return found

    def loader(self, size: Size) -> dict[str, Any]:
        """The data alone, on one core."""
        task, draws = self.task(size), -(-self.effort.loader_utterances // size.batch)

        def once(name: str, number: int) -> Result:
            own = replace(task, scratch=f"{task.scratch}/loader-{number}", steps=task.unmeasured_steps + draws)
            return run(LOADER_CONTENDERS[name], 1, to_argument(own))

        return summary(rounds(self.effort, LOADER_CONTENDERS, once), LOADER_RATIOS)

    def ways(self, size: Size) -> Result:
        """How many times as long a step, a transcription and a log-mel take without what makes them fast."""
        effort = self.effort.for_size(size)
        own = WaysTask(
            **vars(self.task(size)),
            taught=str(self.taught(size)),
            test=str(self.data / "test"),
            utterances=effort.test_utterances,
            times=effort.repeats,
        )
        wait_for_quiet(effort.patience_seconds)
        found = run("bench.ways", self.threads, to_argument(own))
        console.print(f"  {size.name}: {found}")
        return found

    def fixed(self) -> dict[str, Any]:
        """Milliseconds of a step of train.py beside model and data: a model with next to nothing to compute.

        Compared with the bare compute on batches that are drawn, too: after the drawing a step finds other things in
        the processor's caches. What that costs is told by the same on batches in memory.
        """
        runs = self.training(BARE, ("limit", "limit_drawn", "ours_w0"))
        of_step = {name: [_ms_beside_data(result) for result in results] for name, results in runs.items()}
        beside = [ours - limit for ours, limit in zip(of_step["ours_w0"], of_step["limit_drawn"], strict=True)]
        return {
            "limit_ms": round(median(of_step["limit"]), 3),
            "limit_drawn_ms": round(median(of_step["limit_drawn"]), 3),
            "ours_without_data_ms": round(median(of_step["ours_w0"]), 3),
            "fixed_ms": round(median(beside), 3),
        }

    def resume(self, size: Size) -> dict[str, Any]:
        """Seconds from the start to the first update, by the step that it begins at."""
        return self.alone("resume", size, batch=8)

    def card(self) -> dict[str, Any]:
        """What train.py makes of a GPU, by size and precision; without one only what a CPU can do in a quick run."""
        sizes, has_gpu = self.effort.card_sizes, gpus() > 0
        if not has_gpu and set(sizes) & set(CARD_SIZES):
            return {"left_out": "it needs a CUDA GPU, and torch sees none here"}
        found: dict[str, Any] = {}
        for size in sizes:
            task = self.task(size)
            for precision in CARD_PRECISIONS:
                own = replace(
                    task, workers=min(CARD_WORKERS, os.cpu_count() or 1), scratch=f"{task.scratch}/card-{precision}"
                )
                card = CardTask(**vars(own), device="cuda" if has_gpu else "cpu", precision=precision)
                found[f"{size.name}, {precision}"] = run("bench.card", self.threads, to_argument(card), on_cpu=False)
                console.print(f"  {size.name}, {precision}: {found[f'{size.name}, {precision}']}")
        return found

    def alone(self, name: str, size: Size, **changed: Any) -> Result:
        """Medians of a module that makes all its comparisons itself: `resume`, `saving`, `scale`."""
        task = self.task(size)

        def once(number: int) -> Result:
            own = replace(task, scratch=f"{task.scratch}/{name}-{number}", **changed)
            Path(own.scratch).mkdir()
            return run(f"bench.{name}", self.threads, to_argument(own))

        return repeated(self.effort, once)

    def of_size(self, size: Size) -> Mapping[str, Any]:
        """Training and evaluation of a size."""
        console.print(f"training, {size.name}")
        trained = summary(self.training(size), TRAINING_RATIOS)
        console.print(f"evaluation, {size.name}")
        return {"batch": size.batch, "training": trained, "evaluation": self.evaluation(size)}


def _ms_beside_data(result: Result) -> float:
    """Milliseconds an utterance of a training, without the waiting for data as its own clock has it."""
    told = f"{RATE}_told"
    by_its_clock = result[told] if told in result else result[RATE]
    return float(1e3 / result[RATE] - 1e3 / by_its_clock * result["data_wait"])
