"""Self-training on real weights: `REAL_MODELS=DIR REAL_CORPUS=DIR python -m bench.real.self_training --out DIR`.

The training set is divided into two halves, row by row in turns. A model is trained on the first half. It labels the
second half, whose texts it does not get. The base model is then trained on the first half with these labels. A further
training gets the true texts in their place, which show the most that labels can give. All trainings have the same
number of updates. Each model is scored on the test set, which the guard of `pseudolabel` knows, and on English. A high
rate gives in few minutes a model whose labels are of use. A run that was interrupted continues, as `make real` does.
"""

import json
import shlex
import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from bench.real import arms
from bench.real.arms import CALIBRATION_STEPS, Extent, per_update
from bench.real.command import add_extent, measured, parser_of, show_table
from bench.real.inputs import Inputs
from bench.real.record import Record
from bench.real.silence import write_silence
from bench.real.table import percent
from normalizers import get_normalizer
from whisper_ft.scoring.scores import Prediction, score

ARMS = {"half": "half A", "labels": "half A, labels of half B", "truth": "half A, true texts of half B"}
HEAD = (
    *("training data", "clips", "WER", "CER", "loss", "English WER", "updates", "minutes"),
    *("kept labels", "WER of the labels", "WER of all labels"),
)
GROUP_ROWS = 32  # rows of a row group, which a run shuffles together
AGREE_BEAMS = 5


def divide(data: Path, out: Path) -> dict[str, int]:
    """Write both halves of prepared data, and the second one without its texts as well. Returns their rows."""
    table = pa.concat_tables([pq.read_table(file) for file in sorted(data.glob("*.parquet"))])
    numbers = pa.array(range(table.num_rows))
    halves = [table.take(numbers.take(pa.array(range(first, table.num_rows, 2)))) for first in range(2)]
    for name, half in (("a", halves[0]), ("b", halves[1]), ("b-audio", halves[1].drop_columns(["sentence"]))):
        folder = out / f"half-{name}"
        folder.mkdir(parents=True, exist_ok=True)
        pq.write_table(half, folder / "train.parquet", row_group_size=GROUP_ROWS)
    return {"a": halves[0].num_rows, "b": halves[1].num_rows}


def join(folders: Sequence[Path], out: Path) -> int:
    """Copy the files of several folders into one, and return the number of their rows."""
    out.mkdir(parents=True, exist_ok=True)
    files = [file for folder in folders for file in sorted(folder.glob("*.parquet"))]
    for number, file in enumerate(files):
        shutil.copyfile(file, out / f"train-{number:05d}.parquet")
    return sum(pq.read_metadata(file).num_rows for file in files)


def label(model: Path, inputs: Inputs, out: Path, limits: Sequence[str]) -> dict[str, Any]:
    """Label the second half by a model, and compare the labels with its true texts.

    Parameters
        limits: further arguments of `pseudolabel`, such as `--min_logprob -0.5`.
    """
    data, labels = out / "half-b-audio", out / "labels"
    given = [
        "--data.path",
        str(data),
        "--data.language",
        inputs.language,
        "--held_out",
        json.dumps(inputs.test.settings),
    ]
    more = ["--agree_beams", str(AGREE_BEAMS), *limits, "--out", str(labels)]
    arms.run(["-m", "whisper_ft", "pseudolabel", str(model), *given, *more], out / "labels.log")
    windows = [json.loads(line) for line in (labels / "windows.jsonl").read_text(encoding="utf-8").splitlines()]
    kept = {path for file in sorted(labels.glob("*.parquet")) for path in _ids(file)}
    truth = pq.read_table(out / "half-b/train.parquet", columns=["sentence"]).column("sentence").to_pylist()
    predictions = [
        Prediction(window["id"], truth[int(window["source"].rpartition("#")[2])], window["text"], window["seconds"], 0)
        for window in windows
        if window["is_whole"]  # a part of a longer clip has no text of its own
    ]
    normalize = get_normalizer("golden", language=inputs.language)
    trusted = score([one for one in predictions if one.id in kept], normalize)
    record = json.loads((labels / "pseudolabel.json").read_text(encoding="utf-8"))
    return {
        "limits": [*limits],
        "summary": record["summary"],
        "wer_kept": trusted.wer,
        "wer_all": score(predictions, normalize).wer,
    }


def _ids(file: Path) -> list[str]:
    return [audio["path"] for audio in pq.read_table(file, columns=["audio"]).column("audio").to_pylist()]


def measure(inputs: Inputs, extent: Extent, out: Path, rate: float, limits: Sequence[str] = ()) -> dict[str, Any]:
    """Run what is missing in OUT/results.json, and return all results.

    Parameters
        rate: learning rate.
        limits: those of `label`.
    """
    record, data = Record.of_inputs(inputs, extent, out / "results.json", rate=rate), out / "train"
    record.once("prepared", lambda: arms.prepare(inputs.train, data))
    rows = record.once("halves", lambda: divide(data, out))
    silence = write_silence(out / "silence")

    def trained(name: str, source: Path, clips: int, steps: int) -> dict[str, Any]:
        changed = {"optim.lr": f"{rate:g}"}
        seconds = arms.seconds_of_ours(inputs, source, out / f"{name}-model", extent, steps, changed)
        return {"updates": steps, "seconds": per_update(seconds), "clips": clips}

    def scored(name: str, model: str, of_training: Mapping[str, Any]) -> dict[str, Any]:
        return {**of_training, **arms.scores(model, inputs, silence, out / name, extent)}

    record.once("unmodified", partial(scored, "unmodified", inputs.model, {}))
    half_a = out / "half-a"
    pace = record.once("pace", lambda: trained("pace", half_a, rows["a"], CALIBRATION_STEPS))
    steps = extent.steps(pace["seconds"])
    for name in ARMS:
        if name == "half":
            source, clips = half_a, rows["a"]
        else:
            if name == "labels":
                record.once("labelling", lambda: label(out / "half-model/final", inputs, out, limits))
            source = out / f"data-{name}"
            clips = join([half_a, out / ("labels" if name == "labels" else "half-b")], source)
        of_training = record.once(f"{name}, trained", partial(trained, name, source, clips, steps))
        record.once(name, partial(scored, name, str(out / f"{name}-model/final"), of_training))
    return record.results


def rows_of(results: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Return a row for each model that has been scored."""
    names = {"unmodified": "none (unmodified)"} | ARMS
    return [_row(names[name], name, results) for name in names if "target" in results.get(name, {})]


def _row(title: str, name: str, results: Mapping[str, Any]) -> tuple[str, ...]:
    arm = results[name]
    target, labelling = arm["target"], results.get("labelling")
    of_labels = ("", "", "")
    if name == "labels" and labelling:
        summary = labelling["summary"]
        kept = f"{summary['kept']} of {summary['windows']}"
        of_labels = (kept, percent(labelling["wer_kept"]), percent(labelling["wer_all"]))
    return (
        title,
        str(arm.get("clips", "")),
        percent(target["wer"]),
        percent(target["cer"]),
        f"{target['eval_loss']:.3f}",
        percent(arm["english"]["wer"]) if "english" in arm else "",
        str(arm.get("updates", "")),
        f"{arm['updates'] * arm['seconds'] / 60:.1f}" if "updates" in arm else "",
        *of_labels,
    )


def main() -> None:
    """Measure, and print the table as Markdown."""
    parser = parser_of("bench.real.self_training", __doc__, "runs/real-self-training")
    add_extent(parser)
    parser.add_argument("--rate", type=float, default=3e-5, help="learning rate (%(default)s)")
    parser.add_argument("--limits", default="", metavar="'--min_logprob -0.5 ...'", help="limits of pseudolabel")
    args = parser.parse_args()
    limited = partial(measure, rate=args.rate, limits=shlex.split(args.limits))
    show_table(HEAD, rows_of(measured(limited, args.out, batch=args.batch, english=args.english)), args.out)


if __name__ == "__main__":
    main()
