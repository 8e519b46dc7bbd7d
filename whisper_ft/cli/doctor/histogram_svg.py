"""A histogram as SVG, with its axes."""

from html import escape

from whisper_ft.cli.doctor.histogram import Histogram

LEFT, RIGHT, TOP, BOTTOM = 44, 354, 10, 132  # of the plot in its picture, which is as wide as a phone
LINES = 5  # most lines across, less the one at the bottom
LABELS = 8  # most numbers along the bottom: more would touch each other


def picture_of(shown: Histogram) -> str:
    """Bars over their range; what is above the last edge has a bar of its own, apart from the others."""
    bars = len(shown.rows)
    ranges = len(shown.edges) - 1
    step = (RIGHT - LEFT) / max(bars + (bars > ranges), 1)
    tick = _tick(max(1, *shown.rows))
    most = tick * -(-max(1, *shown.rows) // tick)
    drawn = "".join(_line(value, most) for value in range(0, most + 1, tick))
    for number, (label, rows) in enumerate(zip(shown.labels, shown.rows, strict=True)):
        height, apart = (BOTTOM - TOP) * rows / most, number >= ranges
        x = LEFT + step * (number + apart)
        drawn += (
            f'<rect class="{"over" if apart else "bar"}" x="{x + 0.75:.2f}" y="{BOTTOM - height:.2f}" '
            f'width="{step - 1.5:.2f}" height="{height:.2f}" rx="1.5"><title>{label}: {rows:,}</title></rect>'
        )
        if apart:
            drawn += f'<text class="axis" x="{x + step / 2:.2f}" y="146">{label}</text>'
    every = -(-ranges // LABELS)
    for number in range(0, ranges + 1, every):
        drawn += f'<text class="axis" x="{LEFT + step * number:.2f}" y="146">{shown.edges[number]:g}</text>'
    drawn += f'<text class="axis" x="{(LEFT + RIGHT) / 2}" y="164">{escape(shown.of)}</text>'
    drawn += f'<text class="axis" transform="translate(9 {(TOP + BOTTOM) / 2}) rotate(-90)">utterances</text>'
    label = f"Utterances by {shown.of}"
    return f'<svg class="histogram" viewBox="0 0 362 168" role="img" aria-label="{escape(label)}">{drawn}</svg>'


def _line(value: int, most: int) -> str:
    """A line across, with its number."""
    y = BOTTOM - (BOTTOM - TOP) * value / most
    number = f"{value:,}" if value < 10_000 else f"{value / 1000:,.4g}k"
    text = f'<text class="axis number" x="{LEFT - 5}" y="{y + 4:.1f}">{number}</text>'
    return f'<path d="M{LEFT} {y + 0.5:.1f}H{RIGHT}" />{text}'


def _tick(rows: int) -> int:
    """What is between two lines, of at most LINES: 1, 2 or 5 with zeros."""
    sizes = (first * int(f"1{'0' * zeros}") for zeros in range(18) for first in (1, 2, 5))
    return next(size for size in sizes if size * LINES >= rows)
