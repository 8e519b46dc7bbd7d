"""Adapters on real weights: `REAL_MODELS=DIR REAL_CORPUS=DIR python -m bench.real.adapters --out DIR`.

The base model is fine-tuned three times for the same minutes: all its weights, an adapter on a float base, and an
adapter on a base in nf4. Each model is scored on the test set, on English, and on sound without speech. The memory is
that of the process while it trains, which keeps what it frees. A run that was interrupted continues, as `make real`
does.
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from bench.real import arms
from bench.real.arms import CALIBRATION_STEPS, Extent, per_update
from bench.real.command import add_extent, measured, parser_of, show_table
from bench.real.inputs import Inputs
from bench.real.record import Record
from bench.real.silence import write_silence
from bench.real.table import percent, words_per_minute

LORA = {"adapter.kind": "lora", "optim.lr": "3e-4"}  # ten times the rate of all weights
ARMS: Mapping[str, Mapping[str, str]] = {"all weights": {}, "LoRA": LORA, "LoRA on nf4": LORA | {"adapter.base": "nf4"}}
HEAD = (
    *("model", "WER", "without runaways", "loss", "English WER", "words/min on silence"),
    *("updates", "minutes", "s/update", "memory", "checkpoint"),
)


def measure(inputs: Inputs, extent: Extent, out: Path) -> dict[str, Any]:
    """Run what is missing in OUT/results.json, and return all results."""
    record, data = Record.of_inputs(inputs, extent, out / "results.json"), out / "train"
    record.once("prepared", lambda: arms.prepare(inputs.train, data))
    silence = write_silence(out / "silence")

    def train(run_dir: Path, steps: int, settings: Mapping[str, str]) -> dict[str, Any]:
        rows = arms.rows_of_ours(inputs, data, run_dir, extent, steps, settings)
        newest = max((run_dir / "checkpoints").glob("step-*"))
        return {
            "updates": steps,
            "seconds": per_update([extent.batch / row["utterances_per_second"] for row in rows]),
            "memory_gb": max(row["memory_gb"] for row in rows),
            "checkpoint_bytes": sum(file.stat().st_size for file in newest.iterdir()),
        }

    def scored(trained: Mapping[str, Any], model: str, folder: Path) -> dict[str, Any]:
        return {**trained, **arms.scores(model, inputs, silence, folder, extent)}

    record.once("unmodified", partial(scored, {}, inputs.model, out / "unmodified"))
    for number, (name, settings) in enumerate(ARMS.items(), start=1):
        pace, run_dir = out / f"arm-{number}-pace", out / f"arm-{number}-model"
        first = record.once(f"{name}, pace", partial(train, pace, CALIBRATION_STEPS, settings))
        steps = extent.steps(first["seconds"])
        trained = record.once(f"{name}, trained", partial(train, run_dir, steps, settings))
        record.once(name, partial(scored, trained, str(run_dir), out / f"arm-{number}"))
    return record.results


def rows_of(results: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Return a row for each model that has been scored."""
    return [_row(name, results[name]) for name in ("unmodified", *ARMS) if "target" in results.get(name, {})]


def _row(name: str, arm: Mapping[str, Any]) -> tuple[str, ...]:
    target = arm["target"]
    trained = ("", "", "", "", "")
    if "updates" in arm:
        trained = (
            str(arm["updates"]),
            f"{arm['updates'] * arm['seconds'] / 60:.1f}",
            f"{arm['seconds']:.2f}",
            f"{arm['memory_gb']:.2f} GB",
            f"{arm['checkpoint_bytes'] / 1e6:.1f} MB",
        )
    return (
        name,
        percent(target["wer"]),
        percent(target["runaway"]["rate_without"]),
        f"{target['eval_loss']:.3f}",
        percent(arm["english"]["wer"]) if "english" in arm else "",
        words_per_minute(arm["silence"]),
        *trained,
    )


def main() -> None:
    """Measure, and print the table as Markdown."""
    parser = parser_of("bench.real.adapters", __doc__, "runs/real-adapters")
    add_extent(parser)
    args = parser.parse_args()
    show_table(HEAD, rows_of(measured(measure, args.out, batch=args.batch, english=args.english)), args.out)


if __name__ == "__main__":
    main()
