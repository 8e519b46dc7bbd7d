"""Run all parts of the benchmark and write results.json: `python -m bench --out bench/results.json`."""

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
from bench.results import report
from bench.rounds import console, run, save
from bench.sizes import FULL, QUICK, SIZES, Effort

PARTS = ("loader", "packing", "augment", "normalizer", "card")


def measure(effort: Effort, threads: int, scratch: Path, names: list[str]) -> Iterator[dict[str, Any]]:
    """Yield all figures so far, each time that one of the named sizes or parts is done."""
    bench = Bench(effort, threads, prepare.corpus(scratch, effort), scratch)
    results: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": describe(threads),
        "effort": asdict(effort),
        "sizes": {},
    }
    for size in SIZES:
        if size.name in names:
            results["sizes"][size.name] = bench.train_and_evaluate(size)
            yield results
    parts: dict[str, Callable[[], Any]] = {
        "loader": lambda: {size.name: bench.loader(size) for size in SIZES[:2]},
        "packing": bench.packing,
        "augment": lambda: run("bench.augment_cost", 1, str(bench.data / "train")),
        "normalizer": lambda: run("bench.normalizer_speed", threads, codes=(0, 1)),  # 1: slower than promised
        "card": bench.card,
    }
    for name in PARTS:
        if name in names:
            console.print(name)
            results[name] = parts[name]()
            yield results


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    names = [*(size.name for size in SIZES), *PARTS]
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__, allow_abbrev=False)
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="JSON file for all figures")
    parser.add_argument(
        "--steps", type=int, metavar="N", help=f"measured updates of each training (default {FULL.measured_steps})"
    )
    parser.add_argument("--repeats", type=int, metavar="R", help=f"rounds of all contenders (default {FULL.repeats})")
    parser.add_argument("--quick", action="store_true", help="show that it runs; the figures mean nothing")
    parser.add_argument(
        "--only", nargs="+", choices=names, default=names, metavar="PART", help=f"parts to run: {', '.join(names)}"
    )
    return parser.parse_args()


def main() -> int:
    """Measure, save and print. Returns 1 if a transcript of evaluate.py differs from that of the plain loop."""
    args = arguments()
    try:
        effort = (QUICK if args.quick else FULL).with_counts(args.steps, args.repeats)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    threads = int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1))
    results: dict[str, Any] = {}
    try:
        with tempfile.TemporaryDirectory(prefix="whisper-ft-bench-") as scratch:
            for results in measure(effort, threads, Path(scratch), args.only):
                save(results, args.out)
    except RuntimeError as error:  # a part that fails must not lose the figures of the others
        place = f"; the figures measured before are in {args.out}" if results else ""
        print(f"error: {error}{place}", file=sys.stderr)
        return 1
    Console().print(report(results))
    print(f"all figures are in {args.out}")
    differing = sum(size["evaluation"]["differing_texts"] for size in results["sizes"].values())
    if differing:
        print(f"error: {differing} texts of evaluate.py differ from the plain loop's", file=sys.stderr)
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
