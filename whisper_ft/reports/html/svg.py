"""Charts as SVG. The style sheet gives a chart its colours, through the class of each element."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from whisper_ft.reports.text import percent, short_count
from whisper_ft.scoring.bootstrap import Interval

# Column chart, in units of its view box, which is about as wide as the screen of a phone.
WIDTH, HEIGHT = 354, 164
RIGHT, TOP, BOTTOM = 352, 18, 128  # of the columns
LEFT, LEFT_OF_GRID = 2, 44
NAMES, AXIS = 143, 160  # base lines of the names below the columns, and of the axis title
GRID_LINES = 5  # largest number of lines across the chart, without the base line
EDGE_NAMES = 8  # largest number of names along the bottom, because more would touch each other


@dataclass(frozen=True)
class Element:
    """One SVG element."""

    tag: str
    attributes: dict[str, str]
    text: str = ""
    tooltip: str = ""


@dataclass
class Chart:
    """An SVG picture. Screen readers read `label` instead of the picture."""

    kind: str  # class in the style sheet
    label: str
    width: int
    height: int
    is_stretched: bool = False  # to the width that the page has for it
    elements: list[Element] = field(default_factory=list)

    def add(self, tag: str, text: str = "", tooltip: str = "", **attributes: str | float) -> None:
        """Add an element. The attribute `kind` becomes its class, and numbers are written with two decimals."""
        named = {
            {"kind": "class"}.get(name, name): value if isinstance(value, str) else f"{value:.2f}"
            for name, value in attributes.items()
        }
        self.elements.append(Element(tag, named, text, tooltip))


@dataclass(frozen=True)
class Column:
    """One column of a chart: `size` gives its height, `text` stands above it and `name` below it."""

    kind: str  # class in the style sheet
    size: float | None
    text: str = ""
    name: str = ""
    interval: Interval | None = None  # drawn as a line over the column
    tooltip: str = ""
    is_apart: bool = False  # leave the width of a column before this one


def column_chart(label: str, axis: str, columns: Sequence[Column], most: float) -> Chart:
    """Draw separate columns, with their texts above and their names below.

    A column of size `most` or more fills the height, and a column of size None has no bar. `axis` is the title below.
    """
    chart = Chart("histogram", label, WIDTH, HEIGHT)
    step = (RIGHT - LEFT) / max(1, len(columns))
    width = min(0.83 * step, 34)
    for index, column in enumerate(columns):
        middle = LEFT + step * (index + 0.5)
        top = float(BOTTOM)
        if column.size is not None:
            top = _y(column.size, most)
            _add_bar(chart, column, middle - width / 2, width, top)
        if column.interval:
            low, high = _y(column.interval.low, most), _y(column.interval.high, most)
            chart.add("path", kind="whisker", d=f"M{middle:.1f} {low:.1f}V{high:.1f}")
            top = min(top, high)
        chart.add("text", column.text, x=middle, y=top - 5)
        chart.add("text", column.name, kind="axis", x=middle, y=NAMES)
    chart.add("path", d=f"M{LEFT} {BOTTOM + 0.5}H{RIGHT}")
    chart.add("text", axis, kind="axis", x=WIDTH / 2, y=AXIS)
    return chart


def range_chart(label: str, axis: str, columns: Sequence[Column], edges: Sequence[float], side: str) -> Chart:
    """Draw touching columns over a grid with numbers, as in a histogram.

    `edges` are the limits of the ranges of the columns, `axis` their title, and `side` the title of the numbers. A
    column with `is_apart` stands behind the last edge, with its own name.
    """
    chart = Chart("histogram", label, WIDTH, HEIGHT)
    largest = round(max((column.size or 0 for column in columns), default=0))
    tick = grid_step(largest)
    most = tick * max(1, -(-largest // tick))
    for value in range(0, most + 1, tick):
        y = _y(value, most)
        chart.add("path", d=f"M{LEFT_OF_GRID} {y + 0.5:.1f}H{RIGHT}")
        chart.add("text", short_count(value), kind="axis number", x=LEFT_OF_GRID - 5, y=y + 4)
    step = (RIGHT - LEFT_OF_GRID) / max(1, len(columns) + any(column.is_apart for column in columns))
    for index, column in enumerate(columns):
        x = LEFT_OF_GRID + step * (index + column.is_apart)
        _add_bar(chart, column, x + 0.75, step - 1.5, _y(column.size or 0, most))
        if column.is_apart:
            chart.add("text", column.name, kind="axis", x=x + step / 2, y=NAMES)
    for index in range(0, len(edges), -(-(len(edges) - 1) // EDGE_NAMES) or 1):
        chart.add("text", f"{edges[index]:g}", kind="axis", x=LEFT_OF_GRID + step * index, y=NAMES)
    chart.add("text", axis, kind="axis", x=(LEFT_OF_GRID + RIGHT) / 2, y=AXIS)
    chart.add("text", side, kind="axis", transform=f"translate(9 {(TOP + BOTTOM) / 2}) rotate(-90)")
    return chart


def grid_step(largest: int) -> int:
    """Return the distance between grid lines: 1, 2 or 5 times a power of ten, for at most GRID_LINES lines."""
    power = 1
    while 5 * power * GRID_LINES < largest:
        power *= 10
    return next(first * power for first in (1, 2, 5) if first * power * GRID_LINES >= largest)


def share_bar(label: str, parts: Sequence[tuple[str, str, int]]) -> Chart:
    """Draw one bar that is divided in proportion to the sizes of its parts, each given as (class, name, size)."""
    sizes = ", ".join(f"{size:,} {name}" for _, name, size in parts)
    chart = Chart("bar", f"{label}: {sizes}", 1000, 10, is_stretched=True)
    scale, left = 1000 / max(1, sum(size for _, _, size in parts)), 0.0
    for kind, _, size in parts:
        chart.add("rect", kind=kind, x=left, width=size * scale, height=10)
        left += size * scale
    return chart


def rate_bar(rate: float | None, interval: Interval | None, most: float, overall: float | None, few: bool) -> Chart:
    """Draw a rate as a bar on a scale from 0 to `most`, with its interval. A dotted line marks the overall rate.

    Each part that is None is left out, and values above `most` are drawn at the end of the scale.

    `few` fades the bar, because the rate comes from too few words.
    """
    chart = Chart("bar", percent(rate), 200, 14, is_stretched=True)

    def x(value: float) -> float:
        return 200 * min(value / most, 1.0) if most else 0.0

    if rate is not None:
        chart.add("rect", kind="few" if few else "rate", y=3, width=x(rate), height=8, rx=1)
    if interval:
        low, high = x(interval.low), x(interval.high)
        chart.add("path", kind="whisker", d=f"M{low:.1f} 7H{high:.1f}M{low:.1f} 4V10M{high:.1f} 4V10")
    if overall is not None:
        chart.add("path", kind="overall", d=f"M{x(overall):.1f} 0V14")
    return chart


def change_line(value: float, interval: Interval, kind: str) -> Chart:
    """Draw a difference as a point on a line with zero in the middle, and its interval as a bar.

    `kind` is the class of the bar in the style sheet.
    """
    chart = Chart("change", "the difference and zero", 600, 36)
    reach = 1.15 * max(abs(interval.low), abs(interval.high), abs(value)) or 1.0
    low, middle, high = (300 + 300 * at / reach for at in (interval.low, value, interval.high))
    chart.add("path", d="M0 18H600")
    chart.add("path", kind="zero", d="M300 4V32")
    chart.add("rect", kind=kind, x=low, y=12, width=high - low, height=12, rx=6)
    chart.add("circle", cx=middle, cy=18, r=5)
    return chart


def _y(size: float, most: float) -> float:
    return BOTTOM - (BOTTOM - TOP) * min(size / (most or 1.0), 1.0)


def _add_bar(chart: Chart, column: Column, x: float, width: float, top: float) -> None:
    chart.add("rect", tooltip=column.tooltip, kind=column.kind, x=x, y=top, width=width, height=BOTTOM - top, rx=2)
