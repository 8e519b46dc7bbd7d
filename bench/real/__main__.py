"""`make real`: score OpenAI's base model, fine-tune it by the community's recipe and by train.py, and score it again.

Both trainings take the same minutes. All figures are in OUT/results.json, and the table in OUT/results.md. A run that
was interrupted continues: what OUT/results.json has is not done again.
"""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import soundfile
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from bench.real import arms
from bench.real.arms import CALIBRATION_STEPS, Extent, per_update
from bench.real.command import add_extent, measured, parser_of
from bench.real.inputs import Inputs
from bench.real.recipe import Recipe
from bench.real.record import Record
from bench.real.silence import write_silence
from bench.real.table import HEAD, markdown, rows_of

WIDTH = 160  # characters of the table


def measure(inputs: Inputs, extent: Extent, out: Path) -> dict[str, Any]:
    """Run what is missing in OUT/results.json, and return all results."""
    record, data = Record.of_inputs(inputs, extent, out / "results.json"), out / "train"
    record.once("prepared", lambda: arms.prepare(inputs.train, data))
    record.once("mean_seconds", lambda: mean_seconds(data))
    silence = write_silence(out / "silence")

    def scored(name: str, model: str) -> dict[str, Any]:
        return arms.scores(model, inputs, silence, out / name, extent)

    def recipe(folder: str, steps: int) -> list[float]:
        return arms.seconds_of_recipe(
            Recipe(inputs.model, str(data), str(out / folder), inputs.language, extent.batch, steps, extent.passes)
        )

    def ours(folder: str, steps: int) -> list[float]:
        return arms.seconds_of_ours(inputs, data, out / folder, extent, steps)

    def arm(name: str, train: Callable[[str, int], list[float]], model: Path) -> None:
        pace = record.once(f"{name}, seconds per update", lambda: per_update(train(f"{name}-pace", CALIBRATION_STEPS)))
        steps = extent.steps(pace)
        seconds = record.once(f"{name}, trained", lambda: train(f"{name}-model", steps))
        trained = {"updates": steps, "minutes": steps * per_update(seconds) / 60, "batch": extent.batch}
        record.once(name, lambda: scored(name, str(model)) | trained)

    record.once("unmodified", lambda: scored("unmodified", inputs.model))
    arm("recipe", recipe, out / "recipe-model")
    arm("ours", ours, out / "ours-model/final")
    return record.results


def mean_seconds(data: Path) -> float:
    """Return the mean duration of the prepared clips."""
    seconds = [
        soundfile.info(io.BytesIO(audio["bytes"])).duration
        for file in sorted(data.glob("*.parquet"))
        for audio in pq.read_table(file, columns=["audio"]).column("audio").to_pylist()
    ]
    return float(sum(seconds) / len(seconds))


def main() -> None:
    """Measure, print the table, and write it as Markdown."""
    parser = parser_of("bench.real", __doc__, "runs/real")
    add_extent(parser)
    parser.add_argument("--passes", type=int, default=2, help="forward passes per update (%(default)s)")
    args = parser.parse_args()
    results = measured(measure, args.out, batch=args.batch, passes=args.passes, english=args.english)
    table = Table(*HEAD, title=f"{results['corpus']} ({results['language']})", title_justify="left", box=SIMPLE)
    for row in rows_of(results):
        table.add_row(*row)
    Console(highlight=False, markup=False, width=WIDTH).print(table)
    (args.out / "results.md").write_text(markdown(results), encoding="utf-8")
    print(f"written: {args.out / 'results.md'}")


if __name__ == "__main__":
    main()
