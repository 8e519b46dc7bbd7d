"""Contender: the community's recipe, a Seq2SeqTrainer as in the scripts that people copy, with a time limit.

Labels are the tokenizer's own, without a leading space. The rate is 1e-5 with a linear schedule. The warm-up takes an
eighth of the updates, as 500 of 4,000 in the recipe. Data are streamed through a shuffle buffer.

The batch is the one of train.py. float32 takes the place of float16, which a CPU does not have.
"""

import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import transformers
from transformers import WhisperProcessor

from bench.tasks import TrainingTask, answer
from bench.trainer import Clock, trainer_of

RATE = 1e-5
WARMUP_SHARE = 1 / 8


@dataclass(frozen=True)
class Recipe:
    """Task of this process: the model, its data, and the number of updates."""

    model: str
    data: str
    out: str
    language: str
    batch: int
    steps: int
    passes: int
    """Forward passes per update."""


def main() -> None:
    """Train, save model and processor to `out`, and print the seconds of each update."""
    recipe = Recipe(**json.loads(sys.argv[1]))
    transformers.logging.set_verbosity_error()
    task = TrainingTask(
        model=recipe.model, data=recipe.data, batches="", scratch=f"{recipe.out}-scratch", language=recipe.language,
        batch=recipe.batch // recipe.passes, steps=recipe.steps, unmeasured_steps=0, workers=0, learning_rate=RATE,
    )  # fmt: skip
    clock = Clock()
    trainer = trainer_of(
        task,
        clock,
        lr_scheduler_type="linear",
        warmup_steps=max(round(WARMUP_SHARE * recipe.steps), 1),
        gradient_accumulation_steps=recipe.passes,
    )
    trainer.model.generation_config.language = recipe.language
    trainer.model.generation_config.task = "transcribe"
    begin = time.time()
    trainer.train()
    trainer.save_model(recipe.out)
    WhisperProcessor.from_pretrained(recipe.model).save_pretrained(recipe.out)
    Path(recipe.out, "trained").touch()
    answer({"seconds": [end - start for start, end in zip([begin, *clock.step_ends], clock.step_ends, strict=False)]})


if __name__ == "__main__":
    main()
