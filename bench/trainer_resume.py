"""Contender: Seq2SeqTrainer interrupted in the middle, and resumed with the same arguments and with others."""

import shutil
from pathlib import Path
from typing import Any

import transformers
from safetensors.torch import load_file

from bench.tasks import ExactnessTask, answer, from_argument
from bench.trainer_slices import Utterances, rows, start_token, trainer_of

WARMUP = 2  # updates


def main() -> None:
    """Train without interruption, then resume from the middle in several ways. Prints rates, order and weights."""
    task = from_argument(ExactnessTask)
    transformers.logging.set_verbosity_error()
    half, start = task.steps // 2, start_token(task)

    def train(name: str, checkpoint: Path | None = None, **settings: Any) -> tuple[Path, dict[str, Any]]:
        utterances, folder = Utterances(task, start), Path(task.scratch, f"trainer-{name}")
        own = {"lr_scheduler_type": "linear", "warmup_steps": WARMUP, "save_strategy": "steps", "save_steps": half}
        trainer = trainer_of(task, utterances, "trainer", output_dir=str(folder), **(own | settings))
        trainer.train(resume_from_checkpoint=checkpoint and str(checkpoint))
        trainer.save_model(str(folder))
        rates = [row["learning_rate"] for row in rows(trainer)][-(trainer.args.max_steps - half) :]
        return folder, {"learning_rates": rates, "taken": utterances.taken}

    whole, reference = train("whole")
    middle = whole / f"checkpoint-{half}"
    bare = shutil.copytree(middle, Path(task.scratch, f"bare/checkpoint-{half}"))
    for name in ("optimizer.pt", "scheduler.pt"):
        (bare / name).unlink()
    ways: dict[str, tuple[Path, dict[str, Any]]] = {
        "same": (middle, {}),
        "higher_rate": (middle, {"learning_rate": 10 * task.learning_rate}),
        "more_steps": (middle, {"max_steps": 2 * task.steps}),
        "no_optimizer": (bare, {}),
    }
    answers = {"whole": {"learning_rates": reference["learning_rates"]}}
    weights = load_file(whole / "model.safetensors")
    rest = reference["taken"][half * task.batch : task.steps * task.batch]
    for way, (checkpoint, settings) in ways.items():
        folder, result = train(way, checkpoint, **settings)
        now = load_file(folder / "model.safetensors")
        answers[way] = {
            "learning_rates": result["learning_rates"],
            "same_data": result["taken"][: len(rest)] == rest,
            "same_weights": all(bool((now[name] == tensor).all()) for name, tensor in weights.items()),
        }
    answer(answers)


if __name__ == "__main__":
    main()
