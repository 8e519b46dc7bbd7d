"""Parts of the benchmark: each part compares some contenders, and returns figures for results.json."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench import prepare
from bench.packing import PackingTask
from bench.results import EVALUATION_RATIOS, LOADER_RATIOS, PACKING_RATIOS, TRAINING_RATIOS, summary
from bench.rounds import console, rounds, run
from bench.sizes import CARD_SIZES, PACKING_SIZE, Effort, Size
from bench.tasks import CardTask, Result, TrainingTask, TranscriptionTask, to_argument

TRAINING_CONTENDERS = {
    "limit": ("bench.limit", 0),
    "ours_w0": ("bench.ours", 0),
    "ours_w2": ("bench.ours", 2),
    "trainer_w0": ("bench.trainer", 0),
    "trainer_w2": ("bench.trainer", 2),
}  # module, data workers
EVALUATION_CONTENDERS = ("plain", "ours", "pipeline")
LOADER_CONTENDERS = ("ours", "trainer")
CARD_PRECISIONS = ("bf16", "fp16")
CARD_WORKERS = 8


@dataclass(frozen=True)
class Bench:
    """Folders, threads and effort of a benchmark."""

    effort: Effort
    threads: int
    data: Path
    scratch: Path

    def task(self, size: Size) -> TrainingTask:
        """Return the training task of a size. Its model and train.py's batches are written if they do not exist."""
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

    def train_and_evaluate(self, size: Size) -> Mapping[str, Any]:
        """Measure training and evaluation of a size."""
        console.print(f"training, {size.name}")
        training = self.training(size)
        console.print(f"evaluation, {size.name}")
        return {"batch": size.batch, "training": training, "evaluation": self.evaluation(size)}

    def training(self, size: Size) -> dict[str, Any]:
        """Measure the training contenders. Returns their figures and ratios."""
        task = self.task(size)

        def once(name: str, number: int) -> Result:
            module, workers = TRAINING_CONTENDERS[name]
            own = replace(task, workers=workers, scratch=f"{task.scratch}/training-{name}-{number}")
            return run(module, self.threads, to_argument(own))

        return summary(rounds(self.effort, TRAINING_CONTENDERS, once), TRAINING_RATIOS)

    def evaluation(self, size: Size) -> dict[str, Any]:
        """Measure the ways to transcribe. Returns figures, ratios, and how many texts differ from the plain loop's."""
        model, utterances = self.trained_model(size), self.effort.for_size(size).test_utterances
        texts: dict[str, list[list[str]]] = {name: [] for name in EVALUATION_CONTENDERS}

        def once(name: str, number: int) -> Result:
            out, test = self.scratch / f"{size.name}-{name}.json", str(self.data / "test")
            task = TranscriptionTask(str(model), test, str(out), prepare.LANGUAGE, size.batch, utterances)
            module = "bench.transcribe_ours" if name == "ours" else "bench.transcribe_others"
            result = run(module, self.threads, to_argument(task), name)
            texts[name].append(json.loads(out.read_text(encoding="utf-8")))
            return result

        figures = summary(rounds(self.effort, dict.fromkeys(EVALUATION_CONTENDERS), once), EVALUATION_RATIOS)
        reference = texts["plain"][0]

        def differing(name: str) -> int:
            """Return the number of differing texts, in the round that has most."""
            return max(sum(a != b for a, b in zip(reference, written, strict=True)) for written in texts[name])

        return {
            **figures,
            "utterances": len(reference),
            "differing_texts": max(differing("ours"), differing("plain")),
            "differing_texts_of_pipeline": differing("pipeline"),
        }

    def trained_model(self, size: Size) -> Path:
        """Return the model to evaluate, which is trained long enough that its sentences end."""
        task, steps, data = self.task(size), self.effort.for_size(size).taught_steps, self.data / "train"
        if not steps:  # use the model of an earlier run of train.py; the other contenders save no model
            trained = next(Path(task.scratch).glob("training-ours*/run/final"), None)
            if trained:
                return trained
            steps = task.steps
        if size.taught_utterances:
            data = prepare.first_utterances(data, Path(task.scratch, "taught-data"), size.taught_utterances)
        return prepare.train_model(size, Path(task.model), data, Path(task.scratch, "taught"), steps)

    def loader(self, size: Size) -> dict[str, Any]:
        """Measure the preparation of data without training, on one core. Returns figures and ratios."""
        task, draws = self.task(size), -(-self.effort.loader_utterances // size.batch)

        def once(name: str, number: int) -> Result:
            own = replace(task, scratch=f"{task.scratch}/loader-{number}", steps=task.unmeasured_steps + draws)
            return run("bench.loader", 1, to_argument(own), name)

        return summary(rounds(self.effort, dict.fromkeys(LOADER_CONTENDERS), once), LOADER_RATIOS)

    def packing(self) -> dict[str, Any]:
        """Measure train.py on clips of about 4 s, packed and not: the micro model, and base if REAL_MODELS is set."""
        size, model = PACKING_SIZE, self.scratch / "packing-model"
        prepare.write_model(size, model)
        steps = self.effort.packing_steps
        figures = {size.name: self.packing_of(size.name, model, utterances=96, windows=16, steps=steps)}
        real = Path(os.environ.get("REAL_MODELS", "no-such-folder")) / "whisper-base"
        if real.is_dir():
            figures["base"] = self.packing_of("base", real, utterances=48, windows=4, steps=-(-steps // 3))
        return figures

    def packing_of(self, name: str, model: Path, utterances: int, windows: int, steps: int) -> dict[str, Any]:
        """Measure packing with one model. `windows` are those of a pass, `utterances` those of a packed step.

        A step without packing has as many utterances as a pass has windows.
        """
        data = prepare.joined_clips(self.data / "train", self.scratch / "joined")

        def once(contender: str, number: int) -> Result:
            is_packed = contender == "packed"
            task = PackingTask(
                model=str(model),
                data=str(data),
                batches="",
                scratch=str(self.scratch / f"packing-{name}-{number}"),
                language=prepare.LANGUAGE,
                batch=utterances if is_packed else windows,
                steps=steps + 1,
                unmeasured_steps=1,
                workers=0,
                learning_rate=1e-4,
                is_packed=is_packed,
                windows=windows,
            )
            return run("bench.packing", self.threads, to_argument(task))

        return summary(rounds(self.effort, ("packed", "unpacked"), once), PACKING_RATIOS)

    def card(self) -> dict[str, Any]:
        """Measure train.py on a GPU, by size and precision. A quick run works on a CPU, too."""
        import torch

        sizes, has_gpu = self.effort.card_sizes, torch.cuda.is_available()
        if not has_gpu and set(sizes) & set(CARD_SIZES):
            return {"left_out": "it needs a CUDA GPU, and torch sees none here"}
        figures: dict[str, Any] = {}
        for size in sizes:
            task = self.task(size)
            for precision in CARD_PRECISIONS:
                name, workers = f"{size.name}, {precision}", min(CARD_WORKERS, os.cpu_count() or 1)
                own = replace(task, workers=workers, scratch=f"{task.scratch}/card-{precision}")
                card = CardTask(**vars(own), device="cuda" if has_gpu else "cpu", precision=precision)
                figures[name] = run("bench.card", self.threads, to_argument(card), on_cpu=False)
                console.print(f"  {name}: {figures[name]}")
        return figures
