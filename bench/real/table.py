"""Table of `make real`: the figures of each arm, for the terminal and as Markdown."""

from collections.abc import Mapping
from typing import Any

ARMS = {"unmodified": "unmodified", "recipe": "Seq2SeqTrainer recipe", "ours": "train.py"}
HEAD = (
    "model",
    "WER",
    "CER",
    "loss",
    "runaway",
    "WER without them",
    "English WER",
    "words/min on silence",
    "updates",
    "minutes",
    "speech s/s",
)


def rows_of(results: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Return a row for each arm that has been scored."""
    return [
        _row(name, results[name], results.get("mean_seconds")) for name in ARMS if "target" in results.get(name, {})
    ]


def _row(name: str, arm: Mapping[str, Any], mean_seconds: float | None) -> tuple[str, ...]:
    target, english, silence = arm["target"], arm.get("english"), arm["silence"]
    minutes, updates = arm.get("minutes"), arm.get("updates")
    trained = "" if not minutes or not mean_seconds else f"{updates * arm['batch'] * mean_seconds / minutes / 60:.2f}"
    return (
        ARMS[name],
        percent(target["wer"]),
        percent(target["cer"]),
        f"{target['eval_loss']:.3f}",
        f"{target['runaway']['utterances']} of {target['utterances']}",
        percent(target["runaway"]["rate_without"]),
        percent(english["wer"]) if english else "",
        words_per_minute(silence),
        str(updates or ""),
        f"{minutes:.1f}" if minutes else "",
        trained,
    )


def words_per_minute(silence: Mapping[str, Any]) -> str:
    """Return the words that a model wrote in a minute of sound without speech."""
    return f"{silence['words_on_empty_references'] / (silence['audio_seconds'] / 60):.0f}"


def percent(rate: float | None) -> str:
    """Return a rate in percent, or `n/a`."""
    return "n/a" if rate is None else f"{100 * rate:.1f} %"


def markdown(results: Mapping[str, Any]) -> str:
    """Return the table as Markdown, with the machine and the settings below it."""
    lines = [f"| {' | '.join(HEAD)} |", f"|{'---|' * len(HEAD)}"]
    lines += [f"| {' | '.join(row)} |" for row in rows_of(results)]
    machine, extent = results["machine"], results["extent"]
    lines += [
        "",
        f"{results['date']}; {results['corpus']}, {machine['cpu']}, {extent['threads']} threads, float32; "
        f"{extent['batch']} utterances per update; torch {machine['packages']['torch']}, "
        f"transformers {machine['packages']['transformers']}.",
    ]
    return "\n".join(lines) + "\n"
