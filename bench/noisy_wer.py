"""Error rates of two models on clean and on augmented sound: one trained with augment.waveform, one without.

    python -m bench.noisy_wer --out runs/noisy --augment phone --steps 1200

Both runs are those of configs/demo.yaml, whose corpus `make demo` makes. evaluate.py then scores each on the test set
as it is and under the same augmentation. The table is printed, and written to OUT/results.json.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from rich.table import Table

from bench.machine import describe
from bench.rounds import ROOT, console, environment, save


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.noisy_wer", description=__doc__, allow_abbrev=False)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the runs and of results.json")
    parser.add_argument("--config", type=Path, default=ROOT / "configs/demo.yaml", metavar="FILE")
    parser.add_argument("--test", default="demo-data/be/test", metavar="PATH", help="held-out set that is scored")
    parser.add_argument("--augment", default="phone", metavar="CHAIN", help="augmentation of training and test")
    parser.add_argument("--steps", type=int, metavar="N", help="updates of each run (default: those of the file)")
    parser.add_argument("--threads", type=int, default=1, metavar="T")
    return parser.parse_args()


def program(threads: int, name: str, *options: str) -> None:
    """Run a root program. Raises RuntimeError with its last lines if it fails."""
    command = [sys.executable, str(ROOT / name), *options]
    done = subprocess.run(command, cwd=ROOT, env=environment(threads), capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{name} ended with {done.returncode}:\n{done.stdout[-1000:]}{done.stderr[-2000:]}")


def trained(args: argparse.Namespace, name: str, augment: str) -> Path:
    """Train a run, or go on with it, and return its directory."""
    run_dir: Path = args.out / name
    steps = [] if args.steps is None else ["--steps", str(args.steps)]
    settings = ["--config", str(args.config), "--run_dir", str(run_dir), "--augment.waveform", augment, *steps]
    program(args.threads, "train.py", *settings)
    return run_dir


def scored(args: argparse.Namespace, run_dir: Path, name: str, augment: str) -> dict[str, Any]:
    """Evaluate a run under an augmentation, and return its rates."""
    out = run_dir / f"test-{name}"
    options = ["--model", str(run_dir), "--data.path", args.test, "--out", str(out), "--augment", augment]
    program(args.threads, "evaluate.py", *options, "--sound", "false")
    summary = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    return {key: summary[key] for key in ("wer", "cer", "utterances")}


def main() -> int:
    """Train, score and print the table."""
    args = arguments()
    results: dict[str, Any] = {"machine": describe(args.threads), "augment": args.augment, "rates": {}}
    table = Table("trained on", "WER, clean", "WER, augmented", "CER, clean", "CER, augmented")
    for name, augment in (("clean", "[]"), ("augmented", args.augment)):
        run_dir = trained(args, name, augment)
        rates = {
            key: scored(args, run_dir, key, heard) for key, heard in (("clean", "[]"), ("augmented", args.augment))
        }
        results["rates"][name] = rates
        save(results, args.out / "results.json")
        table.add_row(name, *(f"{100 * rates[key][rate]:.2f} %" for rate in ("wer", "cer") for key in rates))
    console.print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
