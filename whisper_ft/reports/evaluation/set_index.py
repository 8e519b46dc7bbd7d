"""Index of an evaluation of several sets: a page with the rates of each, which leads to the reports."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from whisper_ft.reports.html.page import render_page
from whisper_ft.reports.html.svg import Chart, rate_bar
from whisper_ft.runtime.atomic import write_text
from whisper_ft.scoring.scores import Scores

NAME = "index.html"


class SetRow(NamedTuple):
    """Row of the page about one set."""

    name: str
    address: str
    """Address of its report, relative to the page."""
    scores: Scores
    metric: str
    bar: Chart


def write_set_index(folder: Path, title: str, sets: Mapping[str, Scores]) -> None:
    """Write index.html into the folder that holds the folders of these sets, atomically.

    The page loads nothing and runs nothing.
    """
    page = render_page("set_index", title, rows=list(_rows(sets)))
    write_text(folder / NAME, page)


def _rows(sets: Mapping[str, Scores]) -> Iterator[SetRow]:
    most = max((scores.headline[1] or 0.0 for scores in sets.values()), default=0.0)
    for name, scores in sets.items():
        metric, rate = scores.headline
        bar = rate_bar(rate, None, most, None, few=False)
        yield SetRow(name, f"{quote(name)}/report.html", scores, metric.upper(), bar)
