"""Table of exports: `python -m bench.exports --model DIR --data DATA --language CODE [--clips N] [--out FILE]`.

Each model is exported to every target in every quantisation, and checked in the engines. `--model`, `--data` and
`--language` are repeated together, once for each model. An export is removed once its record is read, so that one
export's disk space is enough. The table is printed as Markdown, and all records are written to OUT as JSON.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from whisper_ft.cli.export.targets import TARGETS, ExportTarget, Quantization
from whisper_ft.reports.text import percent

HEAD = (
    "model",
    "format",
    "MB",
    "engine",
    "result",
    "equal",
    "nearly even",
    "WER",
    "of the model",
    "CER to it",
    "speed",
)
Facts = dict[str, Any]


class ModelAndData(NamedTuple):
    """A model, and clips in a language that it knows."""

    model: str
    data: str
    language: str


def export_of(given: ModelAndData, target: ExportTarget, quantization: Quantization, clips: int) -> Facts:
    """Export a model, and return the content of export.json. Raises RuntimeError if the export itself fails."""
    with TemporaryDirectory(prefix="bench-") as folder:
        out = Path(folder) / "out"
        arguments = [given.model, "--to", target.name, "--quantization", quantization.name, "--out", str(out)]
        arguments += ["--check", given.data, str(clips), "--language", given.language]
        ended = subprocess.run(
            [sys.executable, "-m", "whisper_ft", "export", *arguments],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        for place in (out, out.with_name("out.failed")):
            if (place / "export.json").exists():
                return dict(json.loads((place / "export.json").read_text(encoding="utf-8")))
        raise RuntimeError(f"{' '.join(arguments)}: {ended.stderr.decode(errors='replace').strip()}")


def rows_of(facts: Facts) -> Iterator[tuple[str, ...]]:
    """Yield the cells of an export, a row for each engine."""
    what = f"{facts['target']} {facts['quantization']}"
    size = f"{facts['bytes'] / 1e6:.0f}"
    for report in facts["check"]["engines"]:
        if "clips" not in report:
            yield (facts["model"], what, size, report["engine"], report["status"], *[""] * (len(HEAD) - 5))
            continue
        yield (
            facts["model"],
            what,
            size,
            f"{report['engine']} {report['version']}",
            report["status"],
            f"{report['equal']} of {report['clips']}",
            f"{report['nearly_even']}",
            percent(report["rate"]),
            percent(facts["check"]["model"]["rate"]),
            percent(report["cer_to_model"]),
            f"{report['speed_ratio']:.2f}",
        )


def main() -> None:
    """Export, check and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.exports", description=__doc__, allow_abbrev=False)
    for name in ("model", "data", "language"):
        parser.add_argument(f"--{name}", action="append", required=True)
    parser.add_argument("--clips", type=int, default=24, help="clips of each check (default 24)")
    parser.add_argument("--to", nargs="+", choices=list(TARGETS), default=list(TARGETS), help="targets (default: all)")
    parser.add_argument("--out", type=Path, help="file for the records, as JSON")
    args = parser.parse_args()
    records = []
    print(f"| {' | '.join(HEAD)} |", f"|{'---|' * len(HEAD)}", sep="\n", flush=True)
    for given in (ModelAndData(*each) for each in zip(args.model, args.data, args.language, strict=True)):
        for target in (TARGETS[name] for name in args.to):
            for quantization in target.quantizations:
                records.append(export_of(given, target, quantization, args.clips))
                for row in rows_of(records[-1]):
                    print(f"| {' | '.join(row)} |", flush=True)
                if args.out:
                    args.out.write_text(json.dumps(records, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
