"""How exact training is, beside the Trainer: `python -m bench.exactness --out runs/exactness.json`.

The micro Whisper trains a few updates on the same global batches of utterances of different lengths, without dropout,
in train.py and in Seq2SeqTrainer: in one forward pass per update, and sliced into accumulations and processes. Loss,
gradient norm and weights of each are compared with the program's own run of one big batch. Then both are interrupted in
the middle and resumed, with the same settings and with others. docs/exactness.md tells what came out.
"""

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rich.text import Text
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
THREADS = 1  # per process: two processes on two cores compute as one does alone
WORLDS = (1, 2)
WIDTH = 160  # characters of the tables
ACCUMULATIONS = (1, 2, 4, 8)
SYSTEMS = {"ours": "train.py", **VARIANTS}
WAYS = {
    "same": "the same arguments",
    "higher_rate": "10 times the learning rate",
    "more_steps": "twice the steps",
    "no_optimizer": "the optimizer's file is gone",
}
Steps = Sequence[Mapping[str, float]]


def launched(processes: int, program: Sequence[str]) -> list[str]:
    """The command line of a program in so many processes; `program` begins with sys.executable."""
    if processes == 1:
        return list(program)
    launcher = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--config_file",
        str(ROOT / "accelerate_config.yaml"),
    ]
    module = ["--module"] if program[1] == "-m" else []
    return [*launcher, "--multi_gpu", "--num_processes", str(processes), *module, *program[1 + len(module) :]]


def run(program: Sequence[str], processes: int = 1, codes: tuple[int, ...] = (0,)) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a program."""
    done = subprocess.run(
        launched(processes, program), cwd=ROOT, env=environment(THREADS), capture_output=True, text=True
    )
    if done.returncode not in codes:
        raise RuntimeError(f"{program[1:3]} ended with {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
    return done.returncode, done.stdout, done.stderr


def contender(module: str, task: ExactnessTask, processes: int = 1) -> dict[str, Any]:
    """What a module answers: the last line of its stdout."""
    _, out, _ = run([sys.executable, "-m", module, to_argument(task)], processes)
    return dict(json.loads(out.splitlines()[-1]))


class Ours:
    """Runs of train.py for the comparison."""

    def __init__(self, task: TrainingTask, scratch: Path) -> None:
        self._task, self._scratch = task, scratch

    def run(
        self, name: str, processes: int = 1, codes: tuple[int, ...] = (0,), **settings: Any
    ) -> tuple[Path, int, str, str]:
        """Run directory, exit code, stdout and stderr."""
        run_dir = self._scratch / name
        return run_dir, *run(command(self._task, run_dir, **settings), processes, codes)


def slices(task: ExactnessTask, ours: Ours) -> list[dict[str, Any]]:
    """Every system, world and number of accumulations, compared with the same system's one big batch."""
    logged: dict[tuple[str, int, int], tuple[Steps, Path]] = {}
    for world in WORLDS:
        for accumulate in task.accumulations:
            run_dir, *_ = ours.run(
                f"ours-{world}-{accumulate}", world, batch__per_device=task.batch // (world * accumulate)
            )
            logged["ours", world, accumulate] = logged_steps(run_dir), run_dir / "final"
        own = ExactnessTask(**{**vars(task), "scratch": str(Path(task.scratch, f"trainer-{world}"))})
        answered = contender("bench.trainer_slices", own, world)
        if answered["world"] != world:
            raise RuntimeError(f"the Trainer ran in {answered['world']} processes in place of {world}")
        for name, steps in answered["steps"].items():
            variant, _, accumulate = name.rpartition("-")
            logged[variant, world, int(accumulate)] = steps, Path(own.scratch, name)
    begun = weights(Path(task.model))
    return [
        {
            "system": system,
            "world": world,
            "accumulate": accumulate,
            "steps": [{name: step[name] for name in ("loss", "grad_norm")} for step in steps],
            **compared(steps, logged[system, 1, 1][0]),
            "weights_off": off(begun, weights(logged[system, 1, 1][1]), weights(folder)),
            "weights_off_ours": off(begun, weights(logged["ours", 1, 1][1]), weights(folder)),
        }
        for (system, world, accumulate), (steps, folder) in logged.items()
    ]


def compared(steps: Steps, whole: Steps) -> dict[str, float]:
    """Loss and gradient norm as multiples of the one big batch's: at the first step, and where furthest from 1."""
    found: dict[str, float] = {}
    for name in ("loss", "grad_norm"):
        multiples = [now[name] / then[name] for now, then in zip(steps, whole, strict=True)]
        found |= {f"{name}_first": multiples[0], f"{name}_furthest": max(multiples, key=lambda value: abs(value - 1))}
    return found


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """All weights of a model's folder, by name."""
    return dict(load_file(folder / "model.safetensors"))


def off(begun: Mapping[str, torch.Tensor], whole: Mapping[str, torch.Tensor], now: Mapping[str, torch.Tensor]) -> float:
    """How far weights are from those of another run, as a share of how far that one has come."""

    def distance(a: Mapping[str, torch.Tensor], b: Mapping[str, torch.Tensor]) -> float:
        if a.keys() != b.keys():
            raise RuntimeError(f"not the same weights: {sorted(a.keys() ^ b.keys())}")
        return math.sqrt(sum(float((a[name].double() - b[name].double()).square().sum()) for name in a))

    return distance(whole, now) / distance(whole, begun)


def resumes(task: ExactnessTask, ours: Ours) -> dict[str, Any]:
    """Learning rates of the second half, and whether data and weights are those of the run that was not interrupted."""
    half = task.steps // 2
    settings: dict[str, Any] = {"schedule__kind": "linear", "schedule__warmup": WARMUP, "save__every": half}
    whole, *_ = ours.run("whole", **settings)

    def resumed(way: str, checkpoint: Path, **changes: Any) -> dict[str, Any]:
        """Refused, or the rates and whether it ended alike."""
        resume: dict[str, Any] = {"resume": checkpoint, "save__every": 0}
        run_dir, code, _, told = ours.run(f"resumed-{way}", codes=(0, 2, 3), **(settings | resume | changes))
        if code:
            return {"exit_code": code, "told": told.strip().replace(str(checkpoint), checkpoint.name)}
        return {
            "learning_rates": [row["lr"] for row in logged_steps(run_dir)],
            "same_weights": digests_equal(whole / "final", run_dir / "final"),
        }

    middle = whole / f"checkpoints/step-{half:08d}"
    rate, more = {"optim__lr": 10 * task.learning_rate}, {"steps": 2 * task.steps}
    found = {
        "whole": {"learning_rates": [row["lr"] for row in logged_steps(whole)][half:]},
        "same": resumed("same", middle),
        "higher_rate": resumed("higher_rate", middle, **rate),
        "higher_rate_allowed": resumed("higher_rate_allowed", middle, **rate, allow_change="[optim.lr]"),
        "more_steps": resumed("more_steps", middle, **more),
        "more_steps_allowed": resumed("more_steps_allowed", middle, **more, allow_change="[steps]"),
    }
    (middle / "optimizer.safetensors").unlink()
    found["no_optimizer"] = resumed("no_optimizer", middle)
    return {"ours": found, "trainer": contender("bench.trainer_resume", task)}


def digests_equal(one: Path, other: Path) -> bool:
    """Whether two folders hold the same weights to the bit."""
    return (one / "model.safetensors").read_bytes() == (other / "model.safetensors").read_bytes()


def measure(scratch: Path, steps: int, accumulations: Sequence[int], parts: Sequence[str]) -> dict[str, Any]:
    """Everything, for the file."""
    from whisper_ft.cli.demo.model import write_micro_whisper

    data, model = prepare.corpus(scratch, QUICK), scratch / "model"
    write_micro_whisper(model)
    batches = scratch / "batches.safetensors"
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
    task = ExactnessTask(
        str(model), str(batches), str(scratch), prepare.LANGUAGE, BATCH, steps, LEARNING_RATE, list(accumulations)
    )
    ours = Ours(training, scratch / "ours")
    found = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": describe(THREADS),
        "batch": BATCH,
        "steps": steps,
        "learning_rate": LEARNING_RATE,
        "label_tokens": tokens_per_utterance(batches),
    }
    return found | {part: PARTS[part](task, ours) for part in parts}


def tokens_per_utterance(batches: Path) -> dict[str, int]:
    """Least and most label tokens of an utterance: how different the lengths are."""
    tensors = load_file(batches)
    counts = torch.cat([(tensors[name] != -100).sum(1) for name in tensors if name.endswith(".labels")])
    return {"least": int(counts.min()), "most": int(counts.max())}


def multiple(value: float) -> str:
    """A multiple of what it should be: how far off where that is little, else the multiple."""
    if value == 1:
        return "1"
    return f"1 {value - 1:+.0e}" if abs(value - 1) < 1e-3 else f"{value:.3f}"


def slices_table(found: Iterable[Mapping[str, Any]]) -> Table:
    """Loss, gradient norm and weights of every slicing."""
    table = Table(title="Compared with the same program's one big batch", title_justify="left", box=SIMPLE)
    for name in ("", "processes x accumulations"):
        table.add_column(name, no_wrap=True)
    for name in ("loss, step 1", "grad norm, step 1", "loss, furthest", "grad norm, furthest", "weights off"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in sorted(found, key=lambda row: list(SYSTEMS).index(row["system"])):
        names = ("loss_first", "grad_norm_first", "loss_furthest", "grad_norm_furthest")
        slicing = f"{row['world']} x {row['accumulate']}"
        table.add_row(
            SYSTEMS[row["system"]], slicing, *(multiple(row[name]) for name in names), f"{row['weights_off']:.1e}"
        )
    return table


def resumes_table(found: Mapping[str, Any]) -> Table:
    """What resuming does to the learning rate, the data and the weights."""
    table = Table(title="Resumed in the middle", title_justify="left", box=SIMPLE)
    for name in ("", "way", "learning rates after it", "data", "weights"):
        table.add_column(name)
    for system, ways in found.items():
        for way, result in ways.items():
            rates = " ".join(f"{rate:.3g}" for rate in result.get("learning_rates", [])) or result["told"]
            same = {True: "the same", False: "others", None: ""}
            told = [same[result.get(name)] for name in ("same_data", "same_weights")]
            table.add_row(SYSTEMS[system], WAYS.get(way, way.replace("_", " ")), Text(rates), *told)
    return table


PARTS: dict[str, Callable[[ExactnessTask, Ours], Any]] = {"slices": slices, "resumes": resumes}
TABLES: dict[str, Callable[[Any], Table]] = {"slices": slices_table, "resumes": resumes_table}


def main() -> int:
    """Measure, show and save."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.exactness",
        description=__doc__,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="JSON file for all figures")
    parser.add_argument("--part", choices=list(PARTS), help="this part alone")
    parser.add_argument("--quick", action="store_true", help="2 updates, and 1 or 4 accumulations")
    given = parser.parse_args()
    steps, accumulations = (2, (1, 4)) if given.quick else (8, ACCUMULATIONS)
    parts = [given.part] if given.part else list(PARTS)
    with tempfile.TemporaryDirectory(prefix="whisper-ft-exactness-") as scratch:
        results = measure(Path(scratch), steps, accumulations, parts)
    save(results, given.out)
    console = Console(highlight=False, markup=False, width=WIDTH)
    for part in parts:
        console.print(TABLES[part](results[part]))
    print(f"all figures are in {given.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
