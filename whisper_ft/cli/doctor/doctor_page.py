"""The examination as one HTML page that needs nothing else."""

from html import escape
from pathlib import Path

from whisper_ft.cli.doctor.block import Block, Collated, Finding, Letters, Table
from whisper_ft.cli.doctor.examination import Examination
from whisper_ft.cli.doctor.histogram import Histogram
from whisper_ft.cli.doctor.histogram_svg import picture_of
from whisper_ft.cli.doctor.spelling import letter_of, shown, visible
from whisper_ft.cli.doctor.style import STYLE
from whisper_ft.reports.html.page import html_page
from whisper_ft.runtime.atomic import disk_errors, write_text

NAME = "doctor.html"
PAIRED = (("data", "languages"), ("durations", "label tokens"), ("rows that cannot be used", "duplicates"))


def write_page(folder: Path, title: str, told: Examination) -> Path:
    """Write doctor.html into a folder: it loads nothing, runs nothing and is well-formed XML. DiskError."""
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    body = f"""<header><h1>{_text(title)}</h1></header>
<main>
{_headline(told)}
{_sections(told)}
</main>"""
    page = html_page(visible(title), STYLE, body)
    write_text(folder / NAME, page)
    return folder / NAME


def _headline(told: Examination) -> str:
    tiles = "".join(f"<div><dt>{_text(name)}</dt><dd>{_text(value)}</dd></div>" for name, value in told.figures.items())
    figures = f'<section class="headline"><dl>{tiles}</dl></section>'
    if not told.findings:
        return f'{figures}<p class="verdict good">Nothing stands in the way.</p>'
    items = "".join(f"<li>{_text(finding)}</li>" for finding in told.findings)
    count = "One finding stands" if len(told.findings) == 1 else f"{len(told.findings)} findings stand"
    return f'{figures}<div class="verdict poor"><h2>{count} in the way</h2><ul>{items}</ul></div>'


def _sections(told: Examination) -> str:
    """Each section as a card; those that belong together side by side where there is room."""
    beside, written = dict(PAIRED), list[str]()
    for title in told.sections:
        if title in beside:
            pair = f"{_card(title, told)}{_card(beside[title], told)}"
            written.append(f'<div class="columns">{pair}</div>')
        elif title not in beside.values():
            written.append(_card(title, told))
    return "\n".join(written)


def _card(title: str, told: Examination) -> str:
    blocks = "".join(map(_drawn, told.sections[title]))
    return f'<section class="card"><h2>{_text(title)}</h2>{blocks}</section>'


def _drawn(block: Block) -> str:
    match block:
        case Histogram():
            return f'{picture_of(block)}<p class="soft">{_text(block.summary)}</p>'
        case Letters():
            return f'<p class="soft">{_text(block.title)}</p><ul class="letters">{_letters(block)}</ul>'
        case Table():
            return _table(block)
        case Finding():
            return _found(block)
        case Collated():
            return _collated(block)
    return f"<p>{_text(block)}</p>"


def _found(found: Finding) -> str:
    examples = "".join(
        f"<li>{_text(row)}<span>{escape(found.joint)}</span>{_text(said)}</li>" for row, said in found.examples
    )
    below = f"<ul>{examples}</ul>" if examples else ""
    return f'<div class="found {found.level}"><p>{_text(found.what)}: <b>{_text(found.count)}</b></p>{below}</div>'


def _letters(letters: Letters) -> str:
    return "".join(
        f"<li{' class=' + chr(34) + 'odd' + chr(34) if letter in letters.suspicious else ''}>"
        f"<b>{_text(letter_of(letter))}</b> {rows:,}</li>"
        for letter, rows in letters.counts
    )


def _table(table: Table) -> str:
    head = "".join(f"<th>{_text(cell)}</th>" for cell in table.head)
    rows = "".join(f"<tr>{''.join(f'<td>{_text(cell)}</td>' for cell in row)}</tr>" for row in table.rows)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'


def _collated(window: Collated) -> str:
    """The text, and below it a column for each position of the decoder."""
    prompt = len(window.prompt)
    read = "".join(
        _token(position.read, "prompt" if number < prompt else "" if position.predicted else "masked")
        for number, position in enumerate(window.positions)
    )
    predicted = "".join(
        _token(position.predicted or ("masked", window.ignore), "" if position.predicted else "masked")
        for position in window.positions
    )
    numbers = "".join(f"<td>{number}</td>" for number in range(len(window.positions)))
    masked = len(window.positions) - window.counted
    has_parts = any("\ufffd" in position.read[0] for position in window.positions)
    parts = " \ufffd is a part of a letter that takes several tokens." if has_parts else ""
    shape = " × ".join(map(str, window.shape))
    return (
        f"<article><h3>{_text(window.ids)}<small>log-mel {shape}</small></h3>"
        f'<p class="written" dir="auto">{_text(shown(window.text, 200))}</p>'
        f'<div class="wide"><table class="tokens"><tbody><tr class="soft"><th>position</th>{numbers}</tr>'
        f"<tr><th>reads</th>{read}</tr><tr><th>predicts</th>{predicted}</tr></tbody></table></div>"
        f'<p class="soft">{window.counted} positions count, {masked} are masked.{parts}</p></article>'
    )


def _token(token: tuple[str, int], kind: str) -> str:
    text, number = token
    seen = text.replace(" ", "\u2423")  # an open box: a space would not show
    return f'<td class="{kind}">{_text(seen)}<small>{number}</small></td>'


def _text(text: str) -> str:
    """The text as HTML, isolated: right-to-left text in it does not reorder what stands around."""
    return f"<bdi>{escape(visible(text))}</bdi>"
