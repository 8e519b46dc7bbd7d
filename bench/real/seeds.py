"""Packing with several seeds: `REAL_MODELS=DIR REAL_CORPUS=DIR python -m bench.real.seeds --out DIR`.

DIR is a folder of `python -m bench.real.packing`, whose trainings have seed 1. Both arms, with a clip in each window
and with packed windows, are trained with further seeds for as many updates as seed 1 had in the same minutes. The
number of updates is therefore the same on a busy machine. The WER of both arms is compared by a paired bootstrap over
the clips; a clip is drawn with its transcripts of all seeds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.real import arms
from bench.real.arms import Extent
from bench.real.command import measured, parser_of
from bench.real.inputs import InputError, Inputs
from bench.real.packing import ARMS
from bench.real.record import Record
from bench.real.silence import write_silence
from bench.real.table import percent
from normalizers import get_normalizer
from whisper_ft.scoring.bootstrap import Difference, paired_test
from whisper_ft.scoring.predictions import read_predictions
from whisper_ft.scoring.scores import Prediction, Scores, score

COMPARED = ("unpacked", "packed")
SEEDS = (1, 2, 3)
Transcripts = Mapping[int, Sequence[Prediction]]


def folder_of(out: Path, arm: str, seed: int) -> Path:
    """Return the folder with the scores of a trained model; beside it is the run, named with `-model`."""
    folder = f"arm-{[*ARMS].index(arm) + 1}"
    return out / (folder if seed == 1 else f"{folder}-seed-{seed}")


def transcripts(inputs: Inputs, extent: Extent, out: Path, arm: str) -> dict[int, Sequence[Prediction]]:
    """Train and score what is missing, and return the transcripts of the test set by seed."""
    record = Record.of_inputs(inputs, extent, out / "results.json")
    if arm not in record.results:
        raise InputError(f"{out}: no results of {arm!r}; run python -m bench.real.packing first")
    updates = int(record.results[arm]["updates"])
    silence = write_silence(out / "silence")

    def made(seed: int) -> dict[str, Any]:
        folder = folder_of(out, arm, seed)
        run = folder.with_name(f"{folder.name}-model")
        arms.rows_of_ours(inputs, out / "train", run, extent, updates, {**ARMS[arm], "seed": str(seed)})
        return arms.scores(str(run / "final"), inputs, silence, folder, extent)

    for seed in SEEDS[1:]:
        record.once(f"{arm}, seed {seed}", lambda seed=seed: made(seed))  # type: ignore[misc]
    return {seed: read_predictions(folder_of(out, arm, seed) / "target/predictions.jsonl") for seed in SEEDS}


def pooled(first: Transcripts, second: Transcripts, language: str, *, loops: bool) -> Difference | None:
    """Compare two arms over all seeds. The bootstrap draws clips, because the clip takes the place of the speaker.

    Parameters
        loops: count clips, too, in which a model of that seed ran into the token limit.
    """
    normalizer = get_normalizer("golden", language=language)

    def side(own: Transcripts, other: Transcripts) -> Scores:
        rows: list[Prediction] = []
        for seed, predictions in own.items():
            limit = {row.id for row in (*predictions, *other[seed]) if row.hit_token_limit and not loops}
            kept = (row for row in predictions if row.id not in limit)
            rows += [replace(row, id=f"{seed}/{row.id}", speaker=row.id, columns=None) for row in kept]
        return score(rows, normalizer)

    return paired_test(side(first, second), side(second, first)).wer


def both(inputs: Inputs, extent: Extent, out: Path) -> tuple[str, Transcripts, Transcripts]:
    """Return the language of the corpus, and the transcripts of both arms."""
    first, second = (transcripts(inputs, extent, out, arm) for arm in COMPARED)
    return inputs.language, first, second


def main() -> None:
    """Measure, and print the differences."""
    out = parser_of("bench.real.seeds", __doc__, "runs/real-packing").parse_args().out
    language, first, second = measured(both, out)
    for arm, by_seed in zip(COMPARED, (first, second), strict=True):
        normalizer = get_normalizer("golden", language=language)
        print(arm, *(f"seed {seed} {percent(score(rows, normalizer).wer)}" for seed, rows in by_seed.items()), sep=", ")
    for name, loops in (("WER", True), ("without clips at the token limit", False)):
        change = pooled(first, second, language, loops=loops)
        if change is not None and change.interval is not None:
            low, high = change.interval.low, change.interval.high
            print(
                f"{name}: {percent(change.first)} to {percent(change.second)}, "
                f"{100 * change.change:.1f} points ({100 * low:.1f} to {100 * high:.1f}), p = {change.p_value:.3f}"
            )


if __name__ == "__main__":
    main()
