"""Charts of an evaluation."""

from collections.abc import Sequence

from whisper_ft.reports.html.svg import Chart, Column, change_line, column_chart, rate_bar
from whisper_ft.reports.text import short_count
from whisper_ft.scoring.comparison import SystemComparison
from whisper_ft.scoring.scores import Scores
from whisper_ft.scoring.slices import Slice, Slicing


def utterances_by_rate(scores: Scores) -> Chart:
    """Draw how many utterances have which error rate: none, up to 10 %, …, up to 100 %, above.

    The rate is the main one. Utterances with an empty reference are left out.
    """
    names = ["0", *(str(rate) for rate in range(10, 101, 10)), ">100"]
    sizes = [0] * len(names)
    for row in scores.rows:
        if row.is_scored:
            count = scores.errors_of(row)
            tenths = -(-10 * count.errors // count.reference_length)  # rounded up, in whole numbers
            sizes[min(tenths, len(names) - 1)] += 1
    kinds = ["hit", *["sub"] * (len(names) - 2), "del"]
    columns = [
        Column(kind, size, short_count(size) if size else "", name)
        for kind, size, name in zip(kinds, sizes, names, strict=True)
    ]
    metric = scores.headline[0].upper()
    return column_chart(f"Utterances by {metric}", f"up to … % {metric}", columns, max(sizes))


def rates_in_order(slicing: Slicing, metric: str) -> Chart:
    """Draw the rate of each slice as a column, for slices that have an order of their own, such as durations."""
    columns = [
        Column(
            "few" if group.few else "rate",
            group.count.rate,
            "" if group.count.rate is None else f"{100 * group.count.rate:.1f}",
            _short_name(group),
            None if group.few else group.interval,
        )
        for group in slicing.groups
    ]
    label, axis = f"{metric} by {slicing.by}", f"{metric} in %, by {slicing.by} in seconds"
    return column_chart(label, axis, columns, highest_rate(slicing.groups) or 1.0)


def rate_bars(slicing: Slicing, shown: Sequence[Slice], overall: float | None) -> list[Chart]:
    """Draw a bar for each of the `shown` slices, in their order and on one scale for all slices of the slicing."""
    most = highest_rate(slicing.groups)
    return [rate_bar(group.count.rate, group.interval, most, overall, group.few) for group in shown]


def highest_rate(groups: Sequence[Slice]) -> float:
    """Return the end of the scale: the highest rate or interval of the slices with enough words, else of all slices.

    It is 0 if no slice has a rate above 0.
    """
    return max((_reach(group) for group in groups if not group.few), default=0.0) or max(map(_reach, groups), default=0)


def change_chart(comparison: SystemComparison) -> Chart | None:
    """Draw the difference between two systems with its interval; None if there is no interval."""
    _, difference = comparison.headline
    if difference is None or difference.interval is None:
        return None
    return change_line(difference.change, difference.interval, change_kind(comparison))


def change_kind(comparison: SystemComparison) -> str:
    """Return the style-sheet class of the change: `hit` if the second system has the lower main rate, `del` if higher.

    It is `even` if the difference may be chance, or if there is no rate.
    """
    _, difference = comparison.headline
    if difference is None or not difference.is_significant:
        return "even"
    return "hit" if difference.change < 0 else "del"


def _reach(group: Slice) -> float:
    return max(group.count.rate or 0.0, group.interval.high if group.interval else 0.0)


def _short_name(group: Slice) -> str:
    return "?" if group.name is None else group.name.removesuffix(" s and more").replace(" – ", "–").removesuffix(" s")
