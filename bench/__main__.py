"""Run all contenders in turn and write results.json: `python -m bench --out bench/results.json`."""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from bench import prepare
from bench.machine import describe
from bench.parts import Bench
from bench.results import shown
from bench.rounds import console, run
from bench.sizes import FULL, QUICK, SIZES, Effort

PARTS = ("runaway", "memory", "fixed", "loader", "resume", "saving", "scale", "normalizer", "card")


def measure(effort: Effort, threads: int, scratch: Path, only: list[str]) -> dict[str, Any]:
    """Everything that was asked for, for results.json."""
    bench = Bench(effort, threads, prepare.corpus(scratch, effort), scratch)
    micro, longer = SIZES[0], SIZES[1]
    results: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": describe(threads),
        "effort": asdict(effort),
        "sizes": {size.name: bench.of_size(size) for size in SIZES if size.name in only},
    }
    parts: dict[str, Callable[[], Any]] = {
        "runaway": lambda: bench.runaway(micro),
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
    return results


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
    with tempfile.TemporaryDirectory(prefix="whisper-ft-bench-") as scratch:
        results = measure(effort, threads, Path(scratch), given.only)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    aside = given.out.with_name(given.out.name + ".partial")
    aside.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    aside.rename(given.out)
    Console().print(shown(results))
    print(f"all figures are in {given.out}")
    evaluations = [size["evaluation"] for size in results["sizes"].values()]
    evaluations += [results["runaway"]] if "runaway" in results else []
    differing = sum(evaluation["differing_texts"] for evaluation in evaluations)
    if differing:
        print(f"error: {differing} texts of evaluate.py are not those of the plain loop", file=sys.stderr)
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
