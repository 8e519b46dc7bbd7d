"""Run all contenders in turn and write results.json: `python -m bench --out bench/results.json`."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from itertools import count
from pathlib import Path
from typing import Any

from rich.console import Console

from bench import prepare
from bench.machine import QUIET_SHARE, Others, describe, wait_for_quiet
from bench.results import EVALUATION_RATIOS, RATE, TRAINING_RATIOS, shown, summary
from bench.sizes import FULL, QUICK, SIZES, Effort, Size
from bench.tasks import Result, TrainingTask, TranscriptionTask, to_argument

ROOT = Path(__file__).parents[1]
TRAINING_CONTENDERS = {
    "limit": ("bench.limit", 0),
    "ours_w0": ("bench.ours", 0),
    "ours_w2": ("bench.ours", 2),
    "trainer_w0": ("bench.trainer", 0),
    "trainer_w2": ("bench.trainer", 2),
}  # module, workers
EVALUATION_CONTENDERS = {"plain": "bench.transcribe_plain", "ours": "bench.transcribe_ours"}

console = Console(highlight=False, soft_wrap=True)


def environment(threads: int) -> Mapping[str, str]:
    """The same for every contender: threads as launch.sh sets them, no GPU, no network, no progress bars."""
    return os.environ | {
        "ACCELERATE_USE_CPU": "true",
        "CUDA_VISIBLE_DEVICES": "",
        "GOMP_SPINCOUNT": "1000",
        "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": str(threads),
        "TOKENIZERS_PARALLELISM": "false",
    }


def run(module: str, threads: int, *arguments: str, codes: tuple[int, ...] = (0,)) -> Result:
    """The figures that a module prints as the last line of its process."""
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment(threads), capture_output=True, text=True)
    if done.returncode not in codes:
        raise RuntimeError(f"{module} ended with {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def rounds(
    effort: Effort, contenders: Mapping[str, Any], once: Callable[[str, int], Result]
) -> dict[str, list[Result]]:
    """`once(name, number)` for all contenders in turn, each round beginning with another one.

    A run beside which others were busy is done again, a few times: chosen by their share, never by its own figures.
    """
    numbers = count()

    def observed(name: str) -> Result:
        tried: list[Result] = []
        while not tried or (tried[-1]["others_share"] > QUIET_SHARE and len(tried) < effort.attempts):
            wait_for_quiet(effort.patience_seconds)
            others = Others()
            result = once(name, next(numbers))
            tried.append(result | {"others_share": others.share(result["cpu_seconds"]), "attempt": len(tried) + 1})
        return min(tried, key=lambda result: float(result["others_share"]))

    runs: dict[str, list[Result]] = {name: [] for name in contenders}
    names = list(contenders)
    for repeat in range(effort.repeats):
        first = repeat % len(names)
        order = names[first:] + names[:first]
        with ThreadPoolExecutor(effort.at_once) as pool:
            for name, result in zip(order, pool.map(observed, order), strict=True):
                runs[name].append(result)
                told = f"{result[RATE]:.1f} utterances/s, others took {result['others_share']:.0%}"
                console.print(f"  {repeat + 1}/{effort.repeats} {name}: {told}")
    return runs


def training(size: Size, effort: Effort, model: Path, data: Path, scratch: Path, threads: int) -> dict[str, Any]:
    """Figures and ratios of all training contenders."""
    task = TrainingTask(
        model=str(model),
        data=str(data / "train"),
        batches=str(scratch / "batches.safetensors"),
        scratch=str(scratch),
        language=prepare.LANGUAGE,
        batch=size.batch,
        steps=effort.steps,
        unmeasured_steps=effort.unmeasured_steps,
        workers=0,
        learning_rate=size.learning_rate,
    )
    prepare.write_batches(task)

    def once(name: str, number: int) -> Result:
        module, workers = TRAINING_CONTENDERS[name]
        own = replace(task, workers=workers, scratch=str(scratch / f"training-{number}"))
        return run(module, threads, to_argument(own))

    return summary(rounds(effort, TRAINING_CONTENDERS, once), TRAINING_RATIOS)


def evaluation(size: Size, effort: Effort, model: Path, data: Path, scratch: Path, threads: int) -> dict[str, Any]:
    """Figures and ratio of both ways to transcribe the test set, and how many texts are not the same."""
    taught = next(scratch.glob("training-*/run/final"))  # train.py's: the other contenders save none
    if effort.taught_steps:
        taught = prepare.teach(size, model, data / "train", scratch, effort.taught_steps)
    texts: dict[str, list[str]] = {}

    def once(name: str, number: int) -> Result:
        out = scratch / f"{name}.json"
        task = TranscriptionTask(str(taught), str(data / "test"), str(out), prepare.LANGUAGE, size.batch)
        result = run(EVALUATION_CONTENDERS[name], threads, to_argument(task))
        texts[name] = json.loads(out.read_text(encoding="utf-8"))
        return result

    found = summary(rounds(effort, EVALUATION_CONTENDERS, once), EVALUATION_RATIOS)
    pairs = list(zip(texts["plain"], texts["ours"], strict=True))
    return {**found, "utterances": len(pairs), "differing_texts": sum(plain != ours for plain, ours in pairs)}


def measure(effort: Effort, threads: int, scratch: Path) -> dict[str, Any]:
    """Everything, for results.json."""
    from whisper_ft.demo.model import write_micro_whisper

    data = prepare.corpus(scratch, effort)
    sizes = {}
    for size in SIZES:
        folder = scratch / size.name
        model = folder / "model"
        write_micro_whisper(model, size.shape)
        console.print(f"training, {size.name}")
        trained = training(size, effort, model, data, folder, threads)
        console.print(f"evaluation, {size.name}")
        sizes[size.name] = {
            "batch": size.batch,
            "training": trained,
            "evaluation": evaluation(size, effort, model, data, folder, threads),
        }
    return {
        "date": time.strftime("%Y-%m-%d"),
        "machine": describe(threads),
        "effort": asdict(effort),
        "sizes": sizes,
        "normalizer": run("bench.normalizer_speed", threads, codes=(0, 1)),  # 1: slower than promised
    }


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__, allow_abbrev=False)
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="JSON file for all figures")
    parser.add_argument("--steps", type=int, metavar="N", help=f"updates of each training (default {FULL.steps})")
    parser.add_argument("--repeats", type=int, metavar="R", help=f"rounds of all contenders (default {FULL.repeats})")
    parser.add_argument("--quick", action="store_true", help="only show that it runs: the figures mean nothing")
    return parser.parse_args()


def main() -> int:
    """Measure, show and save; 1 if a text differs."""
    given = arguments()
    try:
        effort = (QUICK if given.quick else FULL).of(given.steps, given.repeats)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    threads = int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1))
    with tempfile.TemporaryDirectory(prefix="whisper-ft-bench-") as scratch:
        results = measure(effort, threads, Path(scratch))
    given.out.parent.mkdir(parents=True, exist_ok=True)
    aside = given.out.with_name(given.out.name + ".partial")
    aside.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    aside.rename(given.out)
    Console().print(shown(results))
    print(f"all figures are in {given.out}")
    differing = sum(size["evaluation"]["differing_texts"] for size in results["sizes"].values())
    if differing:
        print(f"error: {differing} texts of evaluate.py are not those of the plain loop", file=sys.stderr)
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
