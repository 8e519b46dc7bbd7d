"""How long it takes from the start of a process to the end of its first update: fresh, and resumed far into a run.

train.py's checkpoints are of updates that were never computed: a run is put where it would be, and saved. The Trainer's
is that of its first update, with another number in it.
"""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import torch
import transformers

from bench.ours import command, watched
from bench.prepare import ROOT, run_of
from bench.tasks import TrainingTask, answer, from_argument
from whisper_ft.checkpoint.state import TrainState
from whisper_ft.training.saver import save

OURS = (0, 10, 1_000, 1_000_000)
TRAINERS = (0, 10, 100)
"""It decodes all that it passes by: 500 updates take a quarter of a minute, 2,000 a whole one."""


def ours(task: TrainingTask, step: int) -> float:
    """Seconds of train.py."""
    folder = Path(task.scratch, f"ours-{step}")
    if step:
        _again("save", step)  # a process of its own: it holds the folder until it ends
    moments, _ = watched(command(task, folder, steps=step + 2), 2)
    return moments.step_ends[0] - moments.began


def save_at(task: TrainingTask, step: int) -> None:
    """A checkpoint of that step, with moments."""
    run = run_of(task, Path(task.scratch, f"ours-{step}"), steps=step + 2)
    run.folder.open()
    for parameter in run.parameters.values():
        parameter.grad = torch.zeros_like(parameter)
    run.optimizer.step()
    save(run, TrainState(step=step))
    answer({})


def trainers(step: int) -> float:
    """Seconds of the Trainer."""
    began = time.time()
    return float(_again("trainer", step)["first_step_ended"]) - began


def _again(what: str, step: int) -> dict[str, float]:
    """This module in another process, `python -m bench.resume TASK save|trainer STEP`, and what it answers."""
    argv = [sys.executable, "-m", "bench.resume", sys.argv[1], what, str(step)]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{what} at step {step} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def trainer_from(task: TrainingTask, step: int) -> None:
    """The Trainer from a step to the next one; the checkpoint of its first is made where there is none."""
    from bench.trainer import Clock, trainer_of

    folder, clock = Path(task.scratch, "trainer"), Clock()
    checkpoint = folder / "checkpoint-1"
    given = {"output_dir": str(folder), "max_steps": step + 1, "save_strategy": "steps", "save_steps": 1}
    trainer = trainer_of(task, clock, **given)
    if not step:
        trainer.train()
    else:
        moved = folder / f"moved-{step}"
        shutil.copytree(checkpoint, moved)
        state = json.loads((moved / "trainer_state.json").read_text(encoding="utf-8"))
        (moved / "trainer_state.json").write_text(json.dumps(state | {"global_step": step}), encoding="utf-8")
        trainer.train(resume_from_checkpoint=str(moved))
    answer({"first_step_ended": clock.step_ends[0]})


def main() -> None:
    """Both, in turn, and report seconds by step."""
    task = from_argument(TrainingTask)
    transformers.logging.set_verbosity_error()
    if sys.argv[2:]:
        {"save": save_at, "trainer": trainer_from}[sys.argv[2]](task, int(sys.argv[3]))
        return
    answer(
        {
            "ours": {str(step): round(ours(task, step), 2) for step in OURS},
            "trainer": {str(step): round(trainers(step), 2) for step in TRAINERS},
        }
    )


if __name__ == "__main__":
    main()
