"""Writing of the data report as one HTML page."""

from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from whisper_ft.cli.doctor.blocks import Block, Sound
from whisper_ft.cli.doctor.data_report import DataReport, problem_count
from whisper_ft.cli.doctor.histogram import Histogram
from whisper_ft.cli.doctor.spelling import shown, shown_character
from whisper_ft.reports.html.page import render_page
from whisper_ft.reports.html.svg import Chart, Column, range_chart
from whisper_ft.reports.text import spelled_out
from whisper_ft.runtime.atomic import disk_errors, write_text

NAME = "doctor.html"
PAIRED = {"data": "languages", "durations": "label tokens", "unusable rows": "duplicates"}  # side by side, if wide


def write_page(folder: Path, title: str, report: DataReport) -> Path:
    """Write doctor.html into a folder, which is created if missing, and return its path.

    Raises DiskError if the page cannot be written. The page loads no other files, runs no scripts, and is well-formed
    XML.
    """
    page = render_page(
        "data_check",
        title,
        visible=spelled_out,
        policy="media-src data:" if any(isinstance(block, Sound) for block in _blocks(report)) else "",
        figures=report.figures,
        problems=report.problems,
        problem_count=problem_count(report),
        warnings=report.warnings,
        verdict=report.verdict,
        level="poor" if report.blocking else "fair" if report.problems or report.warnings else "good",
        groups=_groups(report),
        chart=_chart,
        kind=lambda block: type(block).__name__,
        shown=shown,
        shown_character=shown_character,
    )
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / NAME, page)
    return folder / NAME


def _blocks(report: DataReport) -> Iterator[Block]:
    return chain.from_iterable(report.sections.values())


def _groups(report: DataReport) -> list[list[tuple[str, list[Block]]]]:
    """Return the sections in order, in groups of one or two that stand side by side."""
    groups = [
        [title, PAIRED[title]] if title in PAIRED else [title]
        for title in report.sections
        if title not in PAIRED.values()
    ]
    return [[(title, report.sections[title]) for title in group] for group in groups]


def _chart(histogram: Histogram) -> Chart:
    ranges = len(histogram.edges) - 1
    columns = [
        Column(
            "over" if number >= ranges else "rate",
            rows,
            name=label,
            tooltip=f"{label}: {rows:,}",
            is_apart=number >= ranges,
        )
        for number, (label, rows) in enumerate(zip(histogram.labels, histogram.rows, strict=True))
    ]
    label = f"Utterances by {histogram.quantity}"
    return range_chart(label, histogram.quantity, columns, histogram.edges, "utterances")
