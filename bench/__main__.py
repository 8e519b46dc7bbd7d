"""Run all contenders in turn and write results.json: `python -m bench --out bench/results.json`."""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from bench import prepare
from bench.machine import describe
from bench.parts import Bench
from bench.results import shown
from bench.rounds import console, run, save
from bench.sizes import FULL, QUICK, SIZES, Effort

PARTS = ("runaway", "ways", "memory", "fixed", "loader", "resume", "saving", "scale", "normalizer", "card")


def measure(effort: Effort, threads: int, scratch: Path, only: list[str]) -> Iterator[dict[str, Any]]:
    """The figures for results.json, after each part that was asked for: all that there are until then."""
    bench = Bench(effort, threads, prepare.corpus(scratch, effort), scratch)
    micro, longer = SIZES[0], SIZES[1]
    results: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": describe(threads),
        "effort": asdict(effort),
        "sizes": {},
    }
    for size in SIZES:
        if size.name in only:
            results["sizes"][size.name] = bench.of_size(size)
            yield results
    parts: dict[str, Callable[[], Any]] = {
        "runaway": lambda: bench.runaway(micro),
        "ways": lambda: {size.name: bench.ways(size) for size in (micro, longer)},
        "memory": lambda: bench.memory(micro),
        "fixed": bench.fixed,
        "loader": lambda: {size.name: bench.loader(size) for size in (micro, longer)},
        "resume": lambda: bench.resume(micro),
        "saving": lambda: bench.alone("saving", micro),
        "scale": lambda: bench.alone("scale", micro),
        "card": bench.card,
        "normalizer": lambda: run("bench.normalizer_speed", threads, codes=(0, 1)),  # 1: slower than promised
    }
    for name in PARTS:
        if name in only:
            console.print(name)
            results[name] = parts[name]()
            yield results


def arguments() -> argparse.Namespace:
    """The command line."""
    names = [*(size.name for size in SIZES), *PARTS]
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__, allow_abbrev=False)
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="JSON file for all figures")
    parser.add_argument(
        "--steps", type=int, metavar="N", help=f"measured updates of each training (default {FULL.measured_steps})"
    )
    parser.add_argument("--repeats", type=int, metavar="R", help=f"rounds of all contenders (default {FULL.repeats})")
    parser.add_argument("--quick", action="store_true", help="only show that it runs: the figures mean nothing")
    parser.add_argument(
        "--only", nargs="+", choices=names, default=names, metavar="PART", help=f"of: {', '.join(names)}"
    )
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
    results: dict[str, Any] = {}
    try:
        with tempfile.TemporaryDirectory(prefix="whisper-ft-bench-") as scratch:
            for results in measure(effort, threads, Path(scratch), given.only):
                save(results, given.out)
    except RuntimeError as error:  # hours of figures are not lost with the last part
        where = f"; what was measured before is in {given.out}" if results else ""
        print(f"error: {error}{where}", file=sys.stderr)
        return 1
    Console().print(shown(results))
    print(f"all figures are in {given.out}")
    evaluations = [size["evaluation"] for size in results["sizes"].values()]
    evaluations += [results["runaway"]] if "runaway" in results else []
    differing = sum(evaluation.get("differing_texts", 0) for evaluation in evaluations)
    if differing:
        print(f"error: {differing} texts of evaluate.py are not those of the plain loop", file=sys.stderr)
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
