"""Exactness of train.py and of Seq2SeqTrainer: `python -m bench.exactness --out runs/exactness.json`.

Both programs train the micro Whisper for a few updates without dropout, on the same global batches. Each batch is
computed in one forward pass, and also sliced into accumulations and processes. Loss, gradient norm and weights are
compared with the run of the same program in one pass. Then both programs are interrupted in the middle and resumed,
with the same settings and with others. docs/exactness.md shows the results.
"""

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from safetensors.torch import load_file

from bench import prepare
from bench.log import logged_steps
from bench.machine import describe
from bench.ours import command
from bench.rounds import ROOT, environment, save
from bench.sizes import QUICK
from bench.tasks import ExactnessTask, TrainingTask, to_argument
from bench.trainer_resume import WARMUP
from bench.trainer_slices import VARIANTS

BATCH = 16
LEARNING_RATE = 1e-3
THREADS = 1  # per process, so that two processes on two cores compute as one process does alone
WORLDS = (1, 2)
WIDTH = 160  # characters of the tables
ACCUMULATIONS = (1, 2, 4, 8)
QUICK_EXTENT = 2, (1, 4)  # updates, accumulations
SYSTEMS = {"ours": "train.py", **VARIANTS}
SLICE_FIGURES = ("loss_first", "grad_norm_first", "loss_furthest", "grad_norm_furthest")
Steps = Sequence[Mapping[str, float]]
Weights = Mapping[str, torch.Tensor]


def launched(processes: int, program: Sequence[str]) -> list[str]:
    """Return the command line that starts a program in several processes; `program` begins with sys.executable."""
    if processes == 1:
        return list(program)
    config = str(ROOT / "accelerate_config.yaml")
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", config]
    module = ["--module"] if program[1] == "-m" else []
    return [*launcher, "--multi_gpu", "--num_processes", str(processes), *module, *program[1 + len(module) :]]


def run(program: Sequence[str], processes: int = 1, codes: tuple[int, ...] = (0,)) -> tuple[int, str, str]:
    """Run a program. Returns its exit code, stdout and stderr."""
    done = subprocess.run(
        launched(processes, program), cwd=ROOT, env=environment(THREADS), capture_output=True, text=True
    )
    if done.returncode not in codes:
        raise RuntimeError(f"{program[1:3]} ended with {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
    return done.returncode, done.stdout, done.stderr


def contender(module: str, task: ExactnessTask, processes: int = 1) -> dict[str, Any]:
    """Run a contender. Returns its result, which is the last line of its stdout."""
    _, out, _ = run([sys.executable, "-m", module, to_argument(task)], processes)
    return dict(json.loads(out.splitlines()[-1]))


Start = Callable[[Sequence[str], int, tuple[int, ...]], tuple[int, str, str]]


class Ours:
    """Starter of the train.py runs that are compared. `start` has the parameters and results of `run`."""

    def __init__(self, task: TrainingTask, scratch: Path, start: Start) -> None:
        self._task, self._scratch, self._start = task, scratch, start

    def run(
        self, name: str, processes: int = 1, codes: tuple[int, ...] = (0,), **settings: Any
    ) -> tuple[Path, int, str]:
        """Run train.py with settings. Returns the run directory, exit code and stderr."""
        run_dir = self._scratch / name
        code, _, message = self._start(command(self._task, run_dir, **settings), processes, codes)
        return run_dir, code, message


def slices(task: ExactnessTask, ours: Ours) -> list[dict[str, Any]]:
    """Compare every way to slice the batches with the same program's run in one pass.

    A way is a system, a number of processes and a number of accumulations.
    """
    logged: dict[tuple[str, int, int], tuple[Steps, Path]] = {}
    for world in WORLDS:
        for accumulate in task.accumulations:
            per_device = task.batch // (world * accumulate)
            run_dir, *_ = ours.run(f"ours-{world}-{accumulate}", world, batch__per_device=per_device)
            logged["ours", world, accumulate] = logged_steps(run_dir), run_dir / "final"
        own = ExactnessTask(**{**vars(task), "scratch": str(Path(task.scratch, f"trainer-{world}"))})
        result = contender("bench.trainer_slices", own, world)
        if result["world"] != world:
            raise RuntimeError(f"the Trainer ran in {result['world']} processes in place of {world}")
        for name, steps in result["steps"].items():
            variant, _, accumulate = name.rpartition("-")
            logged[variant, world, int(accumulate)] = steps, Path(own.scratch, name)
    initial = weights_of(Path(task.model))
    return [
        {
            "system": system,
            "world": world,
            "accumulate": accumulate,
            "steps": [{name: step[name] for name in ("loss", "grad_norm")} for step in steps],
            **multiples(steps, logged[system, 1, 1][0]),
            "weights_off": distance_share(initial, weights_of(logged[system, 1, 1][1]), weights_of(folder)),
            "weights_off_ours": distance_share(initial, weights_of(logged["ours", 1, 1][1]), weights_of(folder)),
        }
        for (system, world, accumulate), (steps, folder) in logged.items()
    ]


def multiples(steps: Steps, reference: Steps) -> dict[str, float]:
    """Divide loss and gradient norm by those of the reference.

    Returns the quotients of the first step, and of the step where the quotient is furthest from 1.
    """
    result: dict[str, float] = {}
    for name in ("loss", "grad_norm"):
        values = [step[name] / expected[name] for step, expected in zip(steps, reference, strict=True)]
        result |= {f"{name}_first": values[0], f"{name}_furthest": max(values, key=lambda value: abs(value - 1))}
    return result


def weights_of(folder: Path) -> Weights:
    """Read all weights of a model folder, by name."""
    return dict(load_file(folder / "model.safetensors"))


def distance_share(initial: Weights, reference: Weights, weights: Weights) -> float:
    """Return the distance of weights from a reference, divided by the reference's distance from the initial weights."""

    def distance(a: Weights, b: Weights) -> float:
        if a.keys() != b.keys():
            raise RuntimeError(f"not the same weights: {sorted(a.keys() ^ b.keys())}")
        return math.sqrt(sum(float((a[name].double() - b[name].double()).square().sum()) for name in a))

    return distance(reference, weights) / distance(reference, initial)


def resumes(task: ExactnessTask, ours: Ours) -> dict[str, Any]:
    """Resume runs in several ways, and compare them with the run that was not interrupted.

    Returns the learning rates, and whether data and weights are equal.
    """
    half = task.steps // 2
    settings: dict[str, Any] = {"schedule__kind": "linear", "schedule__warmup": WARMUP, "save__every": half}
    whole, *_ = ours.run("whole", **settings)

    def resumed(way: str, checkpoint: Path, **changes: Any) -> dict[str, Any]:
        """Resume a run. Returns learning rates and equality of weights, or exit code and message of a refusal."""
        resume: dict[str, Any] = {"resume": checkpoint, "save__every": 0}
        run_dir, code, message = ours.run(f"resumed-{way}", codes=(0, 2, 3), **(settings | resume | changes))
        if code:
            return {"exit_code": code, "message": message.strip().replace(str(checkpoint), checkpoint.name)}
        one, other = (folder / "final/model.safetensors" for folder in (whole, run_dir))
        return {
            "learning_rates": [row["lr"] for row in logged_steps(run_dir)],
            "same_weights": one.read_bytes() == other.read_bytes(),
        }

    middle = whole / f"checkpoints/step-{half:08d}"
    rate, more = {"optim__lr": 10 * task.learning_rate}, {"steps": 2 * task.steps}
    result = {
        "whole": {"learning_rates": [row["lr"] for row in logged_steps(whole)][half:]},
        "same": resumed("same", middle),
        "higher_rate": resumed("higher_rate", middle, **rate),
        "higher_rate_allowed": resumed("higher_rate_allowed", middle, **rate, allow_change="[optim.lr]"),
        "more_steps": resumed("more_steps", middle, **more),
        "more_steps_allowed": resumed("more_steps_allowed", middle, **more, allow_change="[steps]"),
    }
    (middle / "optimizer.safetensors").unlink()
    result["no_optimizer"] = resumed("no_optimizer", middle)
    return {"ours": result, "trainer": contender("bench.trainer_resume", task)}


PARTS = {"slices": slices, "resumes": resumes}


def measure(
    scratch: Path, steps: int, accumulations: Sequence[int], parts: Sequence[str], start: Start = run
) -> dict[str, Any]:
    """Run the parts, and return their results for the file. `start` runs train.py."""
    from whisper_ft.cli.demo.model import write_micro_whisper

    data, model, batches = prepare.corpus(scratch, QUICK), scratch / "model", scratch / "batches.safetensors"
    write_micro_whisper(model)
    training = TrainingTask(
        model=str(model),
        data=str(data / "train"),
        batches=str(batches),
        scratch=str(scratch / "drawn"),
        language=prepare.LANGUAGE,
        batch=BATCH,
        steps=steps,
        unmeasured_steps=0,
        workers=0,
        learning_rate=LEARNING_RATE,
    )
    prepare.write_batches(training)
    tensors = load_file(batches)
    counts = torch.cat([(tensors[name] != -100).sum(1) for name in tensors if name.endswith(".labels")])
    task = ExactnessTask(
        str(model), str(batches), str(scratch), prepare.LANGUAGE, BATCH, steps, LEARNING_RATE, list(accumulations)
    )
    ours = Ours(training, scratch / "ours", start)
    return {
        "date": time.strftime("%Y-%m-%d"),
        "machine": describe(THREADS),
        "batch": BATCH,
        "steps": steps,
        "learning_rate": LEARNING_RATE,
        "label_tokens": {"least": int(counts.min()), "most": int(counts.max())},  # of an utterance
        **{part: PARTS[part](task, ours) for part in parts},
    }


def table_of(part: str, rows: Any) -> Table:
    """Make the table of one part."""
    table = Table(title=part, title_justify="left", box=SIMPLE)
    if part == "slices":
        for name in ("", "processes x accumulations", *SLICE_FIGURES, "weights off"):
            table.add_column(name.replace("_", " "))
        for row in sorted(rows, key=lambda row: list(SYSTEMS).index(row["system"])):
            figures = (f"{row[name]:.4g}" for name in SLICE_FIGURES)
            slicing = f"{row['world']} x {row['accumulate']}"
            table.add_row(SYSTEMS[row["system"]], slicing, *figures, f"{row['weights_off']:.1e}")
        return table
    for name in ("", "resumed with", "learning rates or refusal", "same data", "same weights"):
        table.add_column(name)
    for system, ways in rows.items():
        for way, row in ways.items():
            rates = " ".join(f"{rate:.3g}" for rate in row.get("learning_rates", [])) or row["message"]
            same = [str(row.get(name, "")) for name in ("same_data", "same_weights")]
            table.add_row(SYSTEMS[system], way.replace("_", " "), rates, *same)
    return table


def main() -> int:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.exactness",
        description=__doc__,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="JSON file for all figures")
    parser.add_argument("--part", choices=list(PARTS), help="this part alone")
    parser.add_argument("--quick", action="store_true", help="2 updates, and 1 or 4 accumulations")
    args = parser.parse_args()
    steps, accumulations = QUICK_EXTENT if args.quick else (8, ACCUMULATIONS)
    parts = [args.part] if args.part else list(PARTS)
    with tempfile.TemporaryDirectory(prefix="whisper-ft-exactness-") as scratch:
        results = measure(Path(scratch), steps, accumulations, parts)
    save(results, args.out)
    console = Console(highlight=False, markup=False, width=WIDTH)
    for part in parts:
        console.print(table_of(part, results[part]))
    print(f"all figures are in {args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
