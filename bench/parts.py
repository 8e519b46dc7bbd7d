"""The parts of the bench: what is compared with what, each as figures for results.json."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from bench import prepare
from bench.machine import gpus
from bench.results import EVALUATION_RATIOS, LOADER_RATIOS, TRAINING_RATIOS, summary
from bench.rounds import console, rounds, run
from bench.sizes import BARE, CARD_SIZES, Effort, Size
from bench.tasks import CardTask, Result, TrainingTask, TranscriptionTask, to_argument

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
RUNAWAY_SHARE = 0.35  # of the steps that teach: so few that some sentences do not end
MEMORY_COPIES = (1, 10)  # of the training set, transcribed
CARD_PRECISIONS = ("bf16", "fp16")
CARD_WORKERS = 8
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
            steps=effort.unmeasured_steps + effort.measured_steps,
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

    def evaluation(self, size: Size, taught_share: float = 1.0) -> dict[str, Any]:
        """Figures and ratios of several ways to transcribe, and how many texts are not the plain loop's."""
        task, model = self.task(size), self.taught(size, taught_share)
        utterances = self.effort.for_size(size).test_utterances
        texts: dict[str, list[str]] = {}

        def once(name: str, number: int) -> Result:
            out = Path(task.scratch, f"{name}.json")
            of_test = str(self.data / "test")
            own = TranscriptionTask(str(model), of_test, str(out), prepare.LANGUAGE, size.batch, utterances)
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

    def taught(self, size: Size, share: float = 1.0) -> Path:
        """The model that is evaluated: trained so long that its sentences end, or for a share of that."""
        task, steps = self.task(size), round(self.effort.for_size(size).taught_steps * share)
        if not steps:  # train.py's: the other contenders save none
            trained = next(Path(task.scratch).glob("training-ours*/run/final"), None)
            return trained or Path(task.model)
        return prepare.teach(size, Path(task.model), Path(task.data), Path(task.scratch, f"taught-{steps}"), steps)

    def memory(self, size: Size) -> dict[str, Any]:
        """Megabytes that evaluate.py takes at most, by the number of utterances: a set, and the same many times."""
        model, task, found = self.taught(size), self.task(size), {}
        for copies in MEMORY_COPIES:
            repeated = prepare.repeated(self.data / "train", Path(task.scratch, f"train-{copies}"), copies)
            utterances = self.effort.train_utterances * copies
            out = Path(task.scratch, f"memory-{copies}.json")
            own = TranscriptionTask(str(model), str(repeated), str(out), prepare.LANGUAGE, size.batch, utterances)
            result = run(EVALUATION_CONTENDERS["ours"], self.threads, to_argument(own))
            found[str(utterances)] = result["peak_rss_mb"]
            console.print(f"  evaluation of {utterances:,} utterances: {result['peak_rss_mb']} MB")
        return found

    def loader(self, size: Size) -> dict[str, Any]:
        """The data alone, on one core."""
        task, draws = self.task(size), -(-self.effort.loader_utterances // size.batch)

        def once(name: str, number: int) -> Result:
            own = replace(task, scratch=f"{task.scratch}/loader-{number}", steps=task.unmeasured_steps + draws)
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

    def alone(self, name: str, size: Size) -> Result:
        """A module that compares nothing: `saving`, `scale`."""
        own = replace(self.task(size), scratch=f"{self.scratch}/{size.name}/{name}")
        Path(own.scratch).mkdir()
        return run(f"bench.{name}", self.threads, to_argument(own))

    def of_size(self, size: Size) -> Mapping[str, Any]:
        """Training and evaluation of a size."""
        console.print(f"training, {size.name}")
        trained = summary(self.training(size), TRAINING_RATIOS)
        console.print(f"evaluation, {size.name}")
        return {"batch": size.batch, "training": trained, "evaluation": self.evaluation(size)}
