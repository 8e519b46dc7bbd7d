"""Packed windows on real weights: `REAL_MODELS=DIR REAL_CORPUS=DIR python -m bench.real.packing --out DIR`.

The base model is fine-tuned three times for the same minutes: with a clip in each window, with packed windows, and with
packed windows that have timestamps and previous text. Each model is scored on the clips of the test set, on long
recordings joined from them, and on sound without speech. A run that was interrupted continues, as `make real` does.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.real import arms
from bench.real.arms import CALIBRATION_STEPS, Extent, per_update
from bench.real.command import measured, parser_of, show_table
from bench.real.inputs import Inputs
from bench.real.record import Record
from bench.real.silence import write_silence
from bench.real.table import percent, words_per_minute

UTTERANCES = 48  # of a packed update, which fill about as many windows as an update without packing has
PACKED = {"pack.enabled": "true", "pack.block": str(UTTERANCES), "batch.size": str(UTTERANCES)}
LABELS = {"labels.timestamps_share": "0.5", "labels.prompt_share": "0.5", "labels.no_speech_share": "0.02"}
ARMS: Mapping[str, Mapping[str, str]] = {
    "unpacked": {},
    "packed": PACKED,
    "packed, with times and prompts": PACKED | LABELS,
}
HEAD = (
    "model",
    "WER",
    "without runaways",
    "loss",
    "long WER",
    "long without runaways",
    "long deletions",
    "late deletions",
    "valid timestamps",
    "words/min on silence",
    "updates",
    "windows",
    "speech s/s",
)


def measure(inputs: Inputs, extent: Extent, out: Path) -> dict[str, Any]:
    """Run what is missing in OUT/results.json, and return all results."""
    record, data = Record.of_inputs(inputs, extent, out / "results.json"), out / "train"
    record.once("prepared", lambda: arms.prepare(inputs.train, data))
    silence = write_silence(out / "silence")

    def scored(name: str, model: str) -> dict[str, Any]:
        return arms.scores(model, inputs, silence, out / name, extent, long=True)

    record.once("unmodified", lambda: scored("unmodified", inputs.model))

    def train(folder: str, steps: int, settings: Mapping[str, str]) -> list[dict[str, Any]]:
        rows = arms.rows_of_ours(inputs, data, out / folder, extent, steps, settings)
        size = int(settings.get("batch.size", extent.batch))
        return [row | {"seconds": size / row["utterances_per_second"]} for row in rows]

    def arm(name: str, folder: str, settings: Mapping[str, str]) -> None:
        pace = record.once(f"{name}, pace", lambda: train(f"{folder}-pace", CALIBRATION_STEPS, settings))
        steps = extent.steps(per_update([row["seconds"] for row in pace]))
        rows = record.once(f"{name}, trained", lambda: train(f"{folder}-model", steps, settings))
        trained = {
            "updates": steps,
            "windows": sum(row.get("windows", extent.batch) for row in rows),
            "speech_seconds": 3600 * rows[-1]["audio_hours"],
            "seconds": steps * per_update([row["seconds"] for row in rows]),
        }
        model = str(out / f"{folder}-model/final")
        record.once(name, lambda: trained | scored(folder, model))

    for number, (name, settings) in enumerate(ARMS.items(), start=1):
        arm(name, f"arm-{number}", settings)
    return record.results


def rows_of(results: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Return a row for each model that has been scored."""
    return [_row(name, results[name]) for name in ("unmodified", *ARMS) if "target" in results.get(name, {})]


def _row(name: str, arm: Mapping[str, Any]) -> tuple[str, ...]:
    target, long, silence = arm["target"], arm["long"], arm["silence"]
    rate = f"{arm['speech_seconds'] / arm['seconds']:.2f}" if "seconds" in arm else ""
    return (
        name,
        percent(target["wer"]),
        percent(target["runaway"]["rate_without"]),
        f"{target['eval_loss']:.3f}",
        percent(long["wer"]),
        percent(long["runaway"]["rate_without"]),
        percent(long["deletion_rate"]),
        percent(long["late_deletions"]),
        percent(long["timestamps"]),
        words_per_minute(silence),
        str(arm.get("updates", "")),
        str(arm.get("windows", "")),
        rate,
    )


def main() -> None:
    """Measure, and print the table as Markdown."""
    out = parser_of("bench.real.packing", __doc__, "runs/real-packing").parse_args().out
    show_table(HEAD, rows_of(measured(measure, out)), out)


if __name__ == "__main__":
    main()
