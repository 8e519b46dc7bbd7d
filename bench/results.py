"""Statistics of repeated runs, medians and ratios, and their tables. All functions are pure."""

from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from typing import Any

from rich.box import SIMPLE
from rich.console import Group
from rich.table import Table
from rich.text import Text

Runs = Mapping[str, Sequence[Mapping[str, Any]]]  # contender -> its runs, in the order of the rounds

RATE = "utterances_per_second"
CONTENDERS = {
    "limit": "compute limit",
    "ours_w0": "train.py, 0 workers",
    "ours_w2": "train.py, 2 workers",
    "trainer_w0": "Trainer, 0 workers",
    "trainer_w2": "Trainer, 2 workers",
    "plain": "decode, extractor, generate",
    "ours": "this project",
    "pipeline": "pipeline(...), 5 beams",
    "trainer": "Trainer's recipe",
    "packed": "windows full of utterances",
    "unpacked": "an utterance a window",
}  # name in the table
TRAINING_RATIOS = (
    ("ours_w0", "limit"),
    ("ours_w2", "limit"),
    ("trainer_w0", "limit"),
    ("trainer_w2", "limit"),
    ("ours_w0", "trainer_w0"),
    ("ours_w0", "trainer_w2"),
    ("ours_w2", "trainer_w2"),
)
EVALUATION_RATIOS = (("ours", "plain"), ("ours", "pipeline"))
LOADER_RATIOS = (("ours", "trainer"),)
PACKING_RATIOS = (("packed", "unpacked"),)
COLUMNS = {
    "speech s/s": ("speech_seconds_per_second", 1),
    "windows/s": ("windows_per_second", 2),
    "fill": ("fill", 3),
    "first s": ("first_step_seconds", 2),
    "start s": ("start_to_first_step_seconds", 2),
    "MB": ("peak_rss_mb", 0),
    "MB, all": ("peak_rss_with_workers_mb", 0),
}  # title -> figure, decimals


def summary(runs: Runs, ratios: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """Return median, minimum and maximum of every figure, the ratios of the rates, and the runs themselves."""
    return {
        "contenders": {name: {**_spreads(repeats), "runs": list(repeats)} for name, repeats in runs.items()},
        "ratios": {f"{a}/{b}": _ratio(runs[a], runs[b]) for a, b in ratios},
    }


def _spreads(repeats: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    columns = {
        name: [run[name] for run in repeats] for name, value in repeats[0].items() if isinstance(value, int | float)
    }
    return {
        name: {"median": round(median(values), 5), "min": min(values), "max": max(values)}
        for name, values in columns.items()
    }


def _ratio(above: Sequence[Mapping[str, Any]], below: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return the ratio of the median rates. Minimum and maximum are ratios within one round; they show the noise."""
    inside = [a[RATE] / b[RATE] for a, b in zip(above, below, strict=True)]
    of_medians = median(run[RATE] for run in above) / median(run[RATE] for run in below)
    return {"ratio": round(of_medians, 3), "min": round(min(inside), 3), "max": round(max(inside), 3)}


def report(results: Mapping[str, Any]) -> Group:
    """Lay out all results for the terminal."""
    machine = results["machine"]
    packages = ", ".join(f"{name} {machine['packages'][name]}" for name in ("torch", "transformers", "datasets"))
    parts: list[Any] = [Text(f"{machine['cpu']}, {machine['cores']} cores, {machine['threads']} threads; {packages}")]
    if results["effort"]["at_once"] > 1:
        parts.append(Text("quick: several contenders ran at once; the figures mean nothing"))
    for name, size in results["sizes"].items():
        evaluation = size["evaluation"]
        texts = f"{evaluation['differing_texts']} texts of evaluate.py differ from the plain loop's; "
        texts += f"{evaluation['differing_texts_of_pipeline']} of the pipeline's differ, because it uses five beams"
        parts += [_table(f"Training, {name}", size["training"]), _table(f"Evaluation, {name}", evaluation, texts)]
    parts += [_table(f"Data alone, one core, {name}", loader) for name, loader in results.get("loader", {}).items()]
    parts += [_table(f"Packing, {name}", packing) for name, packing in results.get("packing", {}).items()]
    parts += [Text(line) for part, lines in LINES.items() if part in results for line in lines(results[part])]
    return Group(*parts)


def _table(title: str, part: Mapping[str, Any], *notes: str) -> Table:
    """Make the table of the contenders of a part, with ratios, noise and notes below it."""
    contenders, ratios = part["contenders"], part["ratios"]
    columns = {title: place for title, place in COLUMNS.items() if place[0] in next(iter(contenders.values()))}
    table = Table(title=title, title_justify="left", caption_justify="left", box=SIMPLE, padding=(0, 1))
    table.add_column("", no_wrap=True)
    for column in ("utt/s", "min–max", *columns):
        table.add_column(column, justify="right", no_wrap=True)
    for name, figures in contenders.items():
        rate = figures[RATE]
        others = [f"{figures[key]['median']:.{decimals}f}" for key, decimals in columns.values()]
        table.add_row(CONTENDERS[name], f"{rate['median']:.1f}", f"{rate['min']:.1f}–{rate['max']:.1f}", *others)
    shares = [figures["others_share"] for figures in contenders.values()]
    middle, most = median(share["median"] for share in shares), max(share["max"] for share in shares)
    noise = f"other processes took {100 * middle:.0f} % of the cores, at most {100 * most:.0f} %"
    lines = [f"{name} {r['ratio']:.2f} ({r['min']:.2f}–{r['max']:.2f})" for name, r in ratios.items()]
    table.caption = "\n".join([*lines, *notes, noise])
    return table


def _normalizer_lines(figures: Mapping[str, Any]) -> Iterator[str]:
    yield (
        f"normaliser: golden {figures['golden_us_per_sentence']} µs a sentence, BasicTextNormalizer "
        f"{figures['whisper_basic_us_per_sentence']} µs: {figures['ratio']:.2f} times as long"
    )


def _card_lines(figures: Mapping[str, Any]) -> Iterator[str]:
    if "left_out" in figures:
        yield f"card: left out, {figures['left_out']}"
        return
    for name, row in figures.items():
        teraflops = row["operations_per_second_of_products"] / 1e12
        yield (
            f"{row['device']}, {name}: {row['utterances_per_second']:.1f} utt/s, {row['memory_gb']:.1f} GB, "
            f"waits for data {row['data_wait']:.1%} of the time, MFU {row['mfu']:.1%} of {teraflops:.1f} TFLOP/s"
        )


def _augment_lines(figures: Mapping[str, Any]) -> Iterator[str]:
    costs = ", ".join(f"{name} {milliseconds:.2f}" for name, milliseconds in figures["ms"].items())
    yield f"augmentation, ms for a clip of 5 s (decoding a clip of the corpus: {figures['decode a clip']}): {costs}"


LINES = {"normalizer": _normalizer_lines, "augment": _augment_lines, "card": _card_lines}
