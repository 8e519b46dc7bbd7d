"""The pictures of the page: SVG that takes its colours from the style, and no size or colour of its own."""

from collections.abc import Sequence
from html import escape

from whisper_ft.reports.evaluation.text import percent, shortened, visible
from whisper_ft.scoring.bootstrap import Interval

LEFT, RIGHT, TOP, BOTTOM = 2, 352, 18, 128  # of the plot of columns, in a picture about as wide as a phone


def shares(label: str, parts: Sequence[tuple[str, str, int]]) -> str:
    """One bar of (class, name, size), with the numbers below it."""
    scale = 1000 / max(1, sum(size for _, _, size in parts))
    bars, left = "", 0.0
    for kind, _, size in parts:
        bars += f'<rect class="{kind}" x="{left:.2f}" width="{size * scale:.2f}" height="10" />'
        left += size * scale
    said = escape(f"{label}: " + ", ".join(f"{size:,} {name}" for _, name, size in parts))
    legend = "".join(f'<li><i class="{kind}"></i><b>{size:,}</b> {name}</li>' for kind, name, size in parts)
    drawing = f'<svg viewBox="0 0 1000 10" preserveAspectRatio="none" role="img" aria-label="{said}">{bars}</svg>'
    return f'<div class="shares">{drawing}<ul>{legend}</ul></div>'


def histogram(label: str, axis: str, names: Sequence[str], sizes: Sequence[int], kinds: Sequence[str]) -> str:
    """A column with its count for each name."""
    step = (RIGHT - LEFT) / max(1, len(names))
    drawn = ""
    for index, (name, size, kind) in enumerate(zip(names, sizes, kinds, strict=True)):
        middle, height = LEFT + step * (index + 0.5), (BOTTOM - TOP) * size / max(1, *sizes)
        width = min(0.83 * step, 34)
        drawn += (
            f'<rect class="{kind}" x="{middle - width / 2:.1f}" y="{BOTTOM - height:.1f}" width="{width:.1f}" '
            f'height="{height:.1f}" rx="2" />'
        )
        drawn += f'<text x="{middle:.1f}" y="{BOTTOM - 5 - height:.1f}">{shortened(size) if size else ""}</text>'
        drawn += f'<text class="axis" x="{middle:.1f}" y="143">{escape(visible(name))}</text>'
    drawn += f'<path d="M{LEFT} {BOTTOM + 0.5}H{RIGHT}" /><text class="axis" x="177" y="160">{escape(axis)}</text>'
    said = escape(visible(label))
    return f'<svg class="histogram" viewBox="0 0 354 164" role="img" aria-label="{said}">{drawn}</svg>'


def rates(label: str, axis: str, columns: Sequence[tuple[str, float | None, Interval | None, bool]]) -> str:
    """A column for each (name, rate, interval, whether it stands on few words), its interval as a line over it."""
    tops = [_top(rate, interval) for _, rate, interval, few in columns if not few]
    most = max(tops, default=0.0) or max((_top(rate, None) for _, rate, _, _ in columns), default=0.0) or 1.0
    step = (RIGHT - LEFT) / max(1, len(columns))

    def y(value: float) -> float:
        return BOTTOM - (BOTTOM - TOP) * min(value / most, 1.0)

    drawn = ""
    for index, (name, rate, interval, few) in enumerate(columns):
        middle, width = LEFT + step * (index + 0.5), min(0.66 * step, 34)
        if rate is not None:
            drawn += (
                f'<rect class="{"few" if few else "rate"}" x="{middle - width / 2:.1f}" y="{y(rate):.1f}" '
                f'width="{width:.1f}" height="{BOTTOM - y(rate):.1f}" rx="2" />'
            )
        if interval and not few:
            drawn += f'<path class="whisker" d="M{middle:.1f} {y(interval.low):.1f}V{y(interval.high):.1f}" />'
        top = min(y(rate or 0.0), y(interval.high) if interval and not few else BOTTOM)
        drawn += f'<text x="{middle:.1f}" y="{top - 5:.1f}">{"" if rate is None else f"{100 * rate:.1f}"}</text>'
        drawn += f'<text class="axis" x="{middle:.1f}" y="143">{escape(visible(name))}</text>'
    drawn += f'<path d="M{LEFT} {BOTTOM + 0.5}H{RIGHT}" /><text class="axis" x="177" y="160">{escape(axis)}</text>'
    said = escape(visible(label))
    return f'<svg class="histogram" viewBox="0 0 354 164" role="img" aria-label="{said}">{drawn}</svg>'


def bar(rate: float | None, interval: Interval | None, most: float, overall: float | None, few: bool) -> str:
    """One rate as a bar on a scale up to `most`, with its interval, and a line where the rate of all lies."""

    def x(value: float) -> float:
        return 200 * min(value / most, 1.0) if most else 0.0

    drawn = ""
    if rate is not None:
        drawn += f'<rect class="{"few" if few else "rate"}" y="3" width="{x(rate):.1f}" height="8" rx="1" />'
    if interval:
        low, high = x(interval.low), x(interval.high)
        drawn += f'<path class="whisker" d="M{low:.1f} 7H{high:.1f}M{low:.1f} 4V10M{high:.1f} 4V10" />'
    if overall is not None:
        drawn += f'<path class="overall" d="M{x(overall):.1f} 0V14" />'
    return f'<svg viewBox="0 0 200 14" preserveAspectRatio="none" role="img" aria-label="{percent(rate)}">{drawn}</svg>'


def change(value: float, interval: Interval, kind: str) -> str:
    """A difference on a line with zero in the middle, its interval as a bar."""
    reach = 1.15 * max(abs(interval.low), abs(interval.high), abs(value)) or 1.0

    def x(at: float) -> float:
        return 300 + 300 * at / reach

    drawn = '<path d="M0 18H600" /><path class="zero" d="M300 4V32" />'
    drawn += (
        f'<rect class="{kind}" x="{x(interval.low):.1f}" y="12" width="{x(interval.high) - x(interval.low):.1f}" '
        f'height="12" rx="6" /><circle cx="{x(value):.1f}" cy="18" r="5" />'
    )
    return f'<svg class="change" viewBox="0 0 600 36" role="img" aria-label="the difference and zero">{drawn}</svg>'


def _top(rate: float | None, interval: Interval | None) -> float:
    return max(rate or 0.0, interval.high if interval else 0.0)
