"""Forgetting on real weights: `REAL_MODELS=DIR REAL_CORPUS=DIR python -m bench.real.forgetting --out DIR`.

The base model is fine-tuned plainly and once for each remedy, with the same number of updates. The remedies are English
rows among the training data, the terms of `anchor.*`, a frozen encoder, and an adapter. The weights of the plain model
are then mixed with the start weights. Each model is scored on the test set, on English, and on sound without speech.

The English rows are divided: the first ones are scored, the last ones are trained on, and the ones between choose the
mixture. REAL_MINUTES (15) is the time of the plain training, whose updates the others repeat. A high rate shows in few
minutes what a long training forgets. A measurement that was interrupted continues.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from bench.real import arms
from bench.real.arms import CALIBRATION_STEPS, Extent, per_update
from bench.real.command import add_extent, measured, parser_of, show_table
from bench.real.inputs import InputError, Inputs, Set
from bench.real.record import Record
from bench.real.silence import write_silence
from bench.real.table import percent, words_per_minute

CHOOSING = 20  # English rows that choose the mixture; no other arm needs them
SHARE = 0.2  # of the rehearsed rows in the training data
MIXED, ALPHAS = "interpolated", "0:1:0.2"
LIMIT = 0.01  # rise of the English WER that the guard of the mixtures allows
HEAD = (
    *("model", "WER", "without runaways", "loss", "English WER", "English loss", "words/min on silence"),
    *("updates", "s/update", "memory"),
)


def arms_of(train: Path, english: Path, language: str, rate: float) -> dict[str, dict[str, str]]:
    """Return the settings of each training by its name. `train` and `english` are the rows that are trained on."""
    own = {"path": str(train), "language": language, "weight": 1 - SHARE}
    mixture = [own, {"path": str(english), "language": "en", "weight": SHARE}]
    rehearsed = {"data.path": "", "data.language": "null", "data.sources": json.dumps(mixture), "data.lanes": "20"}
    return {
        "plain": {},
        f"{SHARE:.0%} English": rehearsed,
        "anchor.l2 0.01": {"anchor.l2": "0.01"},
        "anchor.l2 0.03": {"anchor.l2": "0.03"},
        "anchor.kl 1": {"anchor.kl": "1", "anchor.path": str(english), "anchor.language": "en"},
        "frozen encoder": {"model.freeze": "[encoder]"},
        "LoRA": {"adapter.kind": "lora", "optim.lr": f"{10 * rate:g}"},
    }


def measure(inputs: Inputs, extent: Extent, out: Path, rate: float) -> dict[str, Any]:
    """Run what is missing in OUT/results.json, and return all results. `rate` is the learning rate of all weights."""
    record, data = Record.of_inputs(inputs, extent, out / "results.json", rate=rate), out / "train"
    record.once("prepared", lambda: arms.prepare(inputs.train, data))
    english = divide(inputs, extent, out)
    inputs = replace(inputs, english=Set({"path": str(english / "scored.parquet"), "language": "en"}))
    silence = write_silence(out / "silence")

    def train(run_dir: Path, steps: int, settings: Mapping[str, str]) -> dict[str, Any]:
        rows = arms.rows_of_ours(inputs, data, run_dir, extent, steps, {"optim.lr": f"{rate:g}", **settings})
        seconds = per_update([extent.batch / row["utterances_per_second"] for row in rows])
        memory = max(row["memory_gb"] for row in rows)
        return {"updates": steps, "seconds": seconds, "memory_gb": memory}

    def scored(trained: Mapping[str, Any], model: str, folder: Path) -> dict[str, Any]:
        return {**trained, **arms.scores(model, inputs, silence, folder, extent)}

    record.once("unmodified", partial(scored, {}, inputs.model, out / "unmodified"))
    pace = record.once("pace", partial(train, out / "pace", CALIBRATION_STEPS, {}))
    steps = extent.steps(pace["seconds"])
    trainings = arms_of(data, english / "trained.parquet", inputs.language, rate)
    for number, (name, settings) in enumerate(trainings.items(), start=1):
        run_dir = out / f"arm-{number}-model"
        trained = record.once(f"{name}, trained", partial(train, run_dir, steps, settings))
        record.once(name, partial(scored, trained, str(run_dir), out / f"arm-{number}"))
    mixed = out / MIXED
    record.once("mixtures", partial(mix, inputs, out / "arm-1-model/final", english / "choosing.parquet", mixed))
    record.once(MIXED, partial(scored, {}, str(mixed / "best"), out / f"{MIXED}-scores"))
    return record.results


def divide(inputs: Inputs, extent: Extent, out: Path) -> Path:
    """Write the English rows as three files: scored, choosing and trained. Returns their folder.

    Raises InputError if there is no English set, or none as one parquet file.
    """
    path = Path(inputs.english.settings["path"]) if inputs.english else Path()
    if not path.is_file():
        raise InputError(
            "REAL_ENGLISH: this measurement needs an English set as one parquet file, whose rows it divides"
        )
    table, folder = pq.read_table(path), out / "english"
    folder.mkdir(parents=True, exist_ok=True)
    ends = (0, extent.english_utterances, extent.english_utterances + CHOOSING, table.num_rows)
    if ends[2] + extent.batch > table.num_rows:
        raise InputError(f"{path}: has {table.num_rows} rows, and {ends[2] + extent.batch} are needed; lower --english")
    for name, begin, end in zip(("scored", "choosing", "trained"), ends, ends[1:], strict=False):
        pq.write_table(table.slice(begin, end - begin), folder / f"{name}.parquet", row_group_size=extent.batch)
    return folder


def mix(inputs: Inputs, tuned: Path, english: Path, out: Path) -> dict[str, Any]:
    """Mix a trained model with its start, and choose by validation rows and English ones. Returns the figures."""
    folder = Path(inputs.train.settings["path"]).parent
    validation = next(iter(sorted(folder.glob("validation*"))), None)
    chosen_by = Set({"path": str(validation), "language": inputs.language}) if validation else inputs.train
    guard = [{"name": "english", "path": str(english), "language": "en", "max_worse": LIMIT, "rule": "no_best"}]
    arguments = ["--alpha", ALPHAS, *chosen_by.arguments(), "--sets", json.dumps(guard), "--out", str(out)]
    arms.run(["-m", "whisper_ft", "interpolate", inputs.model, str(tuned), *arguments], out.with_suffix(".log"))
    return dict(json.loads((out / "interpolation.json").read_text(encoding="utf-8")))


def rows_of(results: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Return a row for each model that has been scored."""
    return [_row(name, arm) for name, arm in results.items() if isinstance(arm, Mapping) and "target" in arm]


def _row(name: str, arm: Mapping[str, Any]) -> tuple[str, ...]:
    target, trained = arm["target"], ("", "", "")
    if "updates" in arm:
        trained = (str(arm["updates"]), f"{arm['seconds']:.2f}", f"{arm['memory_gb']:.2f} GB")
    return (
        name,
        percent(target["wer"]),
        percent(target["runaway"]["rate_without"]),
        f"{target['eval_loss']:.3f}",
        percent(arm["english"]["wer"]),
        f"{arm['english']['eval_loss']:.3f}",
        words_per_minute(arm["silence"]),
        *trained,
    )


def main() -> None:
    """Measure, and print the table as Markdown."""
    parser = parser_of("bench.real.forgetting", __doc__, "runs/real-forgetting")
    add_extent(parser)
    parser.add_argument("--rate", type=float, default=3e-5, help="learning rate; LoRA has ten times it (%(default)s)")
    args = parser.parse_args()
    rated = partial(measure, rate=args.rate)
    show_table(HEAD, rows_of(measured(rated, args.out, batch=args.batch, english=args.english)), args.out)


if __name__ == "__main__":
    main()
