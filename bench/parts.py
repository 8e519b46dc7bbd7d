"""The parts of the bench: what is compared with what, each as figures for results.json."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from bench import prepare
from bench.results import EVALUATION_RATIOS, LOADER_RATIOS, TRAINING_RATIOS, summary
from bench.rounds import console, rounds, run
from bench.sizes import BARE, Effort, Size
from bench.tasks import Result, TrainingTask, TranscriptionTask, to_argument

TRAINING_CONTENDERS = {
    "limit": ("bench.limit", 0),
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
RESUMES = 3  # of each kind; the median counts


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
            steps=effort.steps,
            unmeasured_steps=effort.unmeasured_steps,
            workers=0,
            learning_rate=size.learning_rate,
        )
        prepare.write_model(size, Path(task.model))
        if not Path(task.batches).exists():
            prepare.write_batches(task)
        return task

    def training(self, size: Size, names: tuple[str, ...] = tuple(TRAINING_CONTENDERS)) -> dict[str, list[Result]]:
        """Every run of some training contenders."""
        task = self.task(size)

        def once(name: str, number: int) -> Result:
            module, workers = TRAINING_CONTENDERS[name]
            own = replace(task, workers=workers, scratch=f"{task.scratch}/training-{name}-{number}")
            return run(module, self.threads, to_argument(own))

        return rounds(self.effort, dict.fromkeys(names), once)

    def evaluation(self, size: Size) -> dict[str, Any]:
        """Figures and ratios of several ways to transcribe, and how many texts are not the plain loop's."""
        effort, task = self.effort.for_size(size), self.task(size)
        if effort.taught_steps:
            taught = prepare.teach(size, Path(task.model), Path(task.data), Path(task.scratch), effort.taught_steps)
        else:  # train.py's: the other contenders save none
            taught = next(Path(task.scratch).glob("training-ours*/run/final"))
        utterances = max(round(effort.test_utterances * size.share), 1)
        texts: dict[str, list[str]] = {}

        def once(name: str, number: int) -> Result:
            out = Path(task.scratch, f"{name}.json")
            of_test = str(self.data / "test")
            own = TranscriptionTask(str(taught), of_test, str(out), prepare.LANGUAGE, size.batch, utterances)
            result = run(EVALUATION_CONTENDERS[name], self.threads, to_argument(own))
            texts[name] = json.loads(out.read_text(encoding="utf-8"))
            return result

        found = summary(rounds(self.effort, EVALUATION_CONTENDERS, once), EVALUATION_RATIOS)

        def differing(name: str) -> int:
            return sum(a != b for a, b in zip(texts["plain"], texts[name], strict=True))

        return {
            **found,
            "utterances": len(texts["plain"]),
            "differing_texts": differing("ours"),
            "differing_texts_of_pipeline": differing("pipeline"),
        }

    def loader(self, size: Size) -> dict[str, Any]:
        """The data alone, on one core."""
        task = self.task(size)

        def once(name: str, number: int) -> Result:
            own = replace(task, scratch=f"{task.scratch}/loader-{number}")
            return run(LOADER_CONTENDERS[name], 1, to_argument(own))

        return summary(rounds(self.effort, LOADER_CONTENDERS, once), LOADER_RATIOS)

    def fixed(self) -> dict[str, Any]:
        """Milliseconds of a step of train.py beside model and data: a model with next to nothing to compute."""
        runs = self.training(BARE, ("limit", "ours_w0"))
        limit = [1e3 / result["utterances_per_second"] for result in runs["limit"]]
        ours = [1e3 / result["utterances_per_second"] * (1 - result["data_wait"]) for result in runs["ours_w0"]]
        return {
            "limit_ms": round(median(limit), 3),
            "ours_without_data_ms": round(median(ours), 3),
            "fixed_ms": round(median(b - a for a, b in zip(limit, ours, strict=True)), 3),
        }

    def resume(self, size: Size) -> dict[str, Any]:
        """Seconds from the start to the first update, by the step that it begins at."""
        task, found = self.task(size), list[Result]()
        for number in range(min(self.effort.repeats, RESUMES)):
            own = replace(task, scratch=f"{task.scratch}/resume-{number}", batch=8)
            found.append(run("bench.resume", self.threads, to_argument(own)))
            console.print(f"  resume: {found[-1]}")
        return {
            who: {step: median(result[who][step] for result in found) for step in found[0][who]}
            for who in ("ours", "trainer")
        }

    def alone(self, name: str, size: Size) -> Result:
        """A module that compares nothing: `saving`, `scale`."""
        own = replace(self.task(size), scratch=f"{self.scratch}/{size.name}/{name}")
        Path(own.scratch).mkdir()
        return run(f"bench.{name}", self.threads, to_argument(own))


def of_size(bench: Bench, size: Size) -> Mapping[str, Any]:
    """Training and evaluation of a size."""
    console.print(f"training, {size.name}")
    trained = summary(bench.training(size), TRAINING_RATIOS)
    console.print(f"evaluation, {size.name}")
    return {"batch": size.batch, "training": trained, "evaluation": bench.evaluation(size)}
