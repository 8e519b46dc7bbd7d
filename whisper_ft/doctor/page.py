"""The examination as one HTML page that needs nothing else."""

from html import escape
from pathlib import Path

from whisper_ft.doctor.examination import Examination
from whisper_ft.doctor.histogram import Bars
from whisper_ft.doctor.spelling import visible
from whisper_ft.durable import disk_errors, write_text

NAME = "doctor.html"
STYLE = """
:root { color-scheme: light dark; --paper: #f6f5f2; --card: #fff; --ink: #1f1e1b; --line: #e3e0d9; --bar: #3b78c9; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #161618; --card: #1f1f22; --ink: #eceae5; --line: #36363b; --bar: #5a93dd; } }
body { background: var(--paper); color: var(--ink); max-width: 1040px; margin: auto; padding: 32px 20px;
  font: 16px/1.5 system-ui, sans-serif; }
section { background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: 4px 20px;
  margin: 16px 0; }
h2 { font-size: 1.05rem; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; font-size: .85rem; }
svg { width: 100%; max-width: 640px; }
rect { fill: var(--bar); }
text { font-size: 10px; text-anchor: middle; fill: var(--ink); }
"""


def write_page(folder: Path, title: str, told: Examination, end: list[str]) -> Path:
    """Write doctor.html into a folder; the `end` of the text comes first. DiskError if it cannot be written."""
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    sections = [_section("findings", end, "")]
    for name, lines in told.sections.items():
        bars = told.bars.get(name)
        # Where there is a picture, the bars made of characters are left out.
        sections.append(_section(name, lines[:1] if bars else lines, _picture(name, bars) if bars else ""))
    page = (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8" />\n'
        f"<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\" />\n"
        f'<meta name="viewport" content="width=device-width, initial-scale=1" />\n<title>{_text(title)}</title>\n'
        f"<style>{STYLE}</style>\n</head>\n<body>\n<h1>{_text(title)}</h1>\n{''.join(sections)}</body>\n</html>\n"
    )
    write_text(folder / NAME, page)
    return folder / NAME


def _section(name: str, lines: list[str], picture: str) -> str:
    return f"<section><h2>{_text(name)}</h2>{picture}<pre>{chr(10).join(map(_text, lines))}</pre></section>\n"


def _picture(name: str, bars: Bars) -> str:
    """Upright bars with their ranges below."""
    most, drawn = max(1, *(rows for _, rows in bars)), ""
    for index, (label, rows) in enumerate(bars):
        middle, height = 28 + 54 * index, 110 * rows / most
        drawn += f'<rect x="{middle - 22}" y="{130 - height:.1f}" width="44" height="{height:.1f}" />'
        drawn += f'<text x="{middle}" y="{125 - height:.1f}">{rows:,}</text><text x="{middle}" y="144">{label}</text>'
    return f'<svg viewBox="0 0 {54 * len(bars) + 4} 150" role="img" aria-label="{_text(name)}">{drawn}</svg>'


def _text(text: str) -> str:
    return escape(visible(text))
