"""Repeats to medians and ratios, and ratios to tables. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from typing import Any

from rich.box import SIMPLE
from rich.console import Group
from rich.table import Table
from rich.text import Text

Runs = Mapping[str, Sequence[Mapping[str, Any]]]  # contender -> its repeats, in the order they ran

RATE = "utterances_per_second"
TRAINING = {
    "limit": "compute limit",
    "ours_w0": "train.py, 0 workers",
    "ours_w2": "train.py, 2 workers",
    "trainer_w0": "Trainer, 0 workers",
    "trainer_w2": "Trainer, 2 workers",
}
TRAINING_RATIOS = (
    ("ours_w0", "limit"),
    ("ours_w2", "limit"),
    ("trainer_w0", "limit"),
    ("trainer_w2", "limit"),
    ("ours_w0", "trainer_w0"),
    ("ours_w0", "trainer_w2"),
    ("ours_w2", "trainer_w2"),
)
EVALUATION = {
    "plain": "decode, extractor, generate",
    "ours": "evaluate.py",
    "pipeline": "pipeline(...), 5 beams",
}
EVALUATION_RATIOS = (("ours", "plain"), ("ours", "pipeline"))
LOADER = {"ours": "train.py's data", "trainer": "Trainer recipe's data"}
LOADER_RATIOS = (("ours", "trainer"),)


def summary(runs: Runs, ratios: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """Every figure of every contender as median, least and most, the ratios of their rates, and the runs themselves."""
    return {
        "contenders": {name: {**_medians(repeats), "runs": list(repeats)} for name, repeats in runs.items()},
        "ratios": {f"{a}/{b}": _ratio(runs[a], runs[b]) for a, b in ratios},
    }


def medians(repeats: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One mapping in place of many alike: the median of each number, however deep it lies; else what the first says."""
    found: dict[str, Any] = {}
    for name, first in repeats[0].items():
        values = [repeat[name] for repeat in repeats]
        if isinstance(first, Mapping):
            found[name] = medians(values)
        else:
            found[name] = median(values) if isinstance(first, int | float) else first
    return found


def _medians(repeats: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    names = [name for name, value in repeats[0].items() if isinstance(value, int | float)]
    return {name: _spread([repeat[name] for repeat in repeats]) for name in names}


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": round(median(values), 5), "min": min(values), "max": max(values)}


def _ratio(above: Sequence[Mapping[str, Any]], below: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Ratio of the median rates, and the least and most of the ratios inside one repeat: how much is noise."""
    inside = [a[RATE] / b[RATE] for a, b in zip(above, below, strict=True)]
    of_medians = median(run[RATE] for run in above) / median(run[RATE] for run in below)
    return {"ratio": round(of_medians, 3), "min": round(min(inside), 3), "max": round(max(inside), 3)}


def shown(results: Mapping[str, Any]) -> Group:
    """All of it for the terminal."""
    machine = results["machine"]
    packages = ", ".join(f"{name} {machine['packages'][name]}" for name in ("torch", "transformers", "datasets"))
    parts: list[Any] = [Text(f"{machine['cpu']}, {machine['cores']} cores, {machine['threads']} threads; {packages}")]
    if results["effort"]["at_once"] > 1:
        parts.append(Text("quick: several things ran at once; the figures mean nothing"))
    for name, size in results["sizes"].items():
        parts += [_training_table(name, size["training"]), _evaluation_table(name, size["evaluation"])]
    if "runaway" in results:
        parts.append(_runaway(results["runaway"]))
    for name, loader in results.get("loader", {}).items():
        parts.append(_loader_table(name, loader))
    parts += [Text(line) for part, lines in LINES.items() if part in results for line in lines(results[part])]
    return Group(*parts)


def _ways(found: Mapping[str, Any]) -> Iterator[str]:
    for size, kinds in found.items():
        for kind, ratios in kinds.items():
            told = ", ".join(f"{name} {ratio:.2f}" for name, ratio in ratios.items())
            yield f"{size}, {kind} otherwise, times as long: {told}"


def _memory(found: Mapping[str, Any]) -> Iterator[str]:
    told = ", ".join(f"{figures['peak_rss_mb']:.0f} MB for {int(count):,}" for count, figures in found.items())
    yield f"evaluate.py's memory by the number of utterances: {told}"


def _fixed(found: Mapping[str, Any]) -> Iterator[str]:
    yield (
        f"a step beside model and data: {found['fixed_ms']:.2f} ms "
        f"({found['ours_without_data_ms']:.2f} of train.py, {found['limit_drawn_ms']:.2f} of the bare compute on drawn "
        f"batches, {found['limit_ms']:.2f} on batches in memory)"
    )


def _resume(found: Mapping[str, Any]) -> Iterator[str]:
    for who, name in (("ours", "train.py"), ("trainer", "Trainer")):
        told = ", ".join(f"{float(seconds):.1f} s at step {int(step):,}" for step, seconds in found[who].items())
        yield f"from the start to the first update, {name}: {told}"


def _saving(found: Mapping[str, Any]) -> Iterator[str]:
    yield (
        f"saving {found['megabytes']:.1f} MB every {found['every']} updates takes "
        f"{100 * found['share_of_wall_time']:.1f} % of the wall time, {1e3 * found['seconds_of_a_save']:.0f} ms each; "
        f"the run took {found['seconds_without']:.1f} s without, {found['seconds_inline']:.1f} s with, "
        f"{found['seconds_in_background']:.1f} s with save.background"
    )


def _scale(found: Mapping[str, Any]) -> Iterator[str]:
    def told(name: str, unit: str) -> str:
        return ", ".join(f"{value:g} {unit} at {int(count):,}" for count, value in found[name].items())

    yield f"the data alone by shards: {told('utterances_per_second_by_shards', 'utt/s')}"
    yield f"index by files: {told('index_seconds_by_files', 's')}"
    yield f"a lookup in the order by position: {told('lookup_microseconds_by_position', 'µs')}"


def _normalizer(found: Mapping[str, Any]) -> Iterator[str]:
    yield (
        f"normaliser: golden {found['golden_us_per_sentence']} µs a sentence, BasicTextNormalizer "
        f"{found['whisper_basic_us_per_sentence']} µs: {found['ratio']:.2f} times as long"
    )


def _card(found: Mapping[str, Any]) -> Iterator[str]:
    if "left_out" in found:
        yield f"card: left out, {found['left_out']}"
        return
    for name, figures in found.items():
        teraflops = figures["operations_per_second_of_products"] / 1e12
        yield (
            f"{figures['device']}, {name}: {figures['utterances_per_second']:.1f} utt/s, "
            f"{figures['memory_gb']:.1f} GB, waits for data {figures['data_wait']:.1%} of the time, "
            f"MFU {figures['mfu']:.1%} of {teraflops:.1f} TFLOP/s"
        )


LINES = {
    "ways": _ways,
    "memory": _memory,
    "fixed": _fixed,
    "resume": _resume,
    "saving": _saving,
    "scale": _scale,
    "normalizer": _normalizer,
    "card": _card,
}


def _loader_table(size: str, loader: Mapping[str, Any]) -> Table:
    table = _table(f"Data alone, one core, {size}", "utt/s", "min–max")
    for name, found in loader["contenders"].items():
        table.add_row(LOADER[name], *_rate(found))
    table.caption = "\n".join([*_told(loader["ratios"]), _noise(loader)])
    return table


def _training_table(size: str, training: Mapping[str, Any]) -> Table:
    table = _table(f"Training, {size}", "utt/s", "min–max", "÷ limit", "first s", "start s", "MB", "MB, all")
    limit = training["contenders"]["limit"][RATE]["median"]
    for name, found in training["contenders"].items():
        table.add_row(
            TRAINING[name],
            *_rate(found),
            f"{found[RATE]['median'] / limit:.2f}",
            f"{found['first_step_seconds']['median']:.2f}",
            f"{found['start_to_first_step_seconds']['median']:.2f}",
            f"{found['peak_rss_mb']['median']:.0f}",
            f"{found['peak_rss_with_workers_mb']['median']:.0f}",
        )
    table.caption = "\n".join([*_told(training["ratios"]), _noise(training)])
    return table


def _runaway(found: Mapping[str, Any]) -> Table | Text:
    if "left_out" in found:
        return Text(f"where rows run away: left out, {found['left_out']}")
    return _evaluation_table("micro-5s, where rows run away", found)


def _evaluation_table(size: str, evaluation: Mapping[str, Any]) -> Table:
    table = _table(f"Evaluation, {size}", "utt/s", "min–max", "MB")
    for name, found in evaluation["contenders"].items():
        table.add_row(EVALUATION[name], *_rate(found), f"{found['peak_rss_mb']['median']:.0f}")
    texts = "all texts identical" if not evaluation["differing_texts"] else f"{evaluation['differing_texts']} DIFFER"
    texts += f"; {evaluation['differing_texts_of_pipeline']} of the pipeline's are others, with its five beams"
    ours = evaluation["contenders"]["ours"]
    shares = ", ".join(f"{name} {ours[f'{name}_share']['median']:.0%}" for name in ("encoder", "decoder", "rest"))
    told = f"of evaluate.py's time: {shares} (waiting for audio, texts)"
    told += f"\nof the rows {ours['runaway_share']['median']:.1%} ran to the most tokens that the decoder has room for"
    table.caption = "\n".join([*_told(evaluation["ratios"]), texts, told, _noise(evaluation)])
    return table


def _noise(part: Mapping[str, Any]) -> str:
    shares = [found["others_share"] for found in part["contenders"].values()]
    middle, most = median(share["median"] for share in shares), max(share["max"] for share in shares)
    return f"others took {100 * middle:.0f} % of the cores, at most {100 * most:.0f} %"


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", caption_justify="left", box=SIMPLE, padding=(0, 1))
    table.add_column("", no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def _rate(found: Mapping[str, Any]) -> tuple[str, str]:
    rate = found[RATE]
    return f"{rate['median']:.1f}", f"{rate['min']:.1f}–{rate['max']:.1f}"


def _told(ratios: Mapping[str, Mapping[str, float]]) -> Iterator[str]:
    for name, ratio in ratios.items():
        yield f"{name} {ratio['ratio']:.2f} ({ratio['min']:.2f}–{ratio['max']:.2f})"
