"""The curves as one HTML page that needs nothing else: light and dark, desktop, phone and print."""

import base64
from collections.abc import Mapping
from html import escape

import numpy as np

from whisper_ft.reports.curves.history import History
from whisper_ft.reports.curves.panel import Panel, panels_of
from whisper_ft.reports.curves.plot import DARK, LIGHT, key_of, svg_of
from whisper_ft.reports.html.page import html_page

_COLOURS = "\n".join(
    f".run-{number} {{ --run: {light}; --run-dark: {dark}; }}"
    for number, (light, dark) in enumerate(zip(LIGHT.runs, DARK.runs, strict=True))
)
STYLE = f"""
{_COLOURS}
@media (prefers-color-scheme: dark) {{
  i {{ --run: var(--run-dark) !important; }} }}
body {{ max-width: 1180px; }}
.card, figure {{ background: var(--card); border: 1px solid var(--line); border-radius: 12px; }}
.card {{ padding: 14px 24px; overflow-x: auto; }}
table {{ border-collapse: collapse; font-size: .92rem; overflow-wrap: normal; width: 100%; }}
th, td {{ text-align: end; padding: 6px 0 6px 18px; border-top: 1px solid var(--line); white-space: nowrap; }}
thead th {{ border: 0; color: var(--soft); font-weight: 400; font-size: .85rem; }}
th:first-child {{ text-align: start; padding-inline-start: 0; font-weight: 600; }}
i {{ display: inline-block; width: .75em; height: .75em; border-radius: 50%; margin-inline-end: .55em;
  background: var(--run); }}
.key {{ color: var(--soft); font-size: .85rem; margin: 14px 4px 0; }}
.panels {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 420px), 1fr)); gap: 20px;
  margin-top: 20px; }}
figure {{ padding: 14px 16px 8px; }}
img {{ display: block; width: 100%; height: auto; }}
@media (max-width: 720px) {{
  body {{ padding: 20px 14px 48px; }}
  .card {{ padding: 10px 16px; }}
  figure {{ padding: 10px 8px 4px; }}
}}
@media print {{
  body {{ background: none; padding: 0; max-width: none; }}
  .panels {{ grid-template-columns: 1fr 1fr; gap: 10px; }}
  figure {{ break-inside: avoid; }}
}}
"""
COLUMNS = ("run", "state", "step", "loss", "WER", "CER", "at step", "skipped", "utterances / s", "resumed")


def page_of(runs: Mapping[str, History], title: str, width: float) -> str:
    """A page that loads nothing, runs nothing and is well-formed XML; `width` is that of the smoothing."""
    panels = panels_of(list(runs.values()))
    pictures = "\n".join(_figure(panel, runs, width) for panel in panels)
    body = f"""<header><h1>{_text(title)}</h1></header>
<main>
<section class="card">{_table(runs)}</section>
<p class="key">{escape(key_of(runs, panels, width))}</p>
<div class="panels">
{pictures}
</div>
</main>"""
    # The pictures bring styles of their own, which rule nothing but themselves.
    return html_page(title, STYLE, body, "img-src data:")


def facts_of(run: History) -> dict[str, str]:
    """What is known of a run at a glance, for people; a dash for what is not."""
    lowest, losses = run.lowest, run.logged.values("loss")
    speeds = run.logged.values("utterances_per_second")
    skipped = run.logged.values("skipped")
    rates = [_percent(lowest[name]) if lowest and lowest.get(name) is not None else "–" for name in ("wer", "cer")]
    values = (
        run.state,
        f"{run.step:,}" + (f" of {run.planned_steps:,}" if run.planned_steps else ""),
        f"{losses[np.isfinite(losses)][-1]:.4g}" if np.isfinite(losses).any() else "–",
        *rates,
        f"{lowest['step']:,}" if lowest else "–",
        f"{skipped[-1]:g}" if len(skipped) and np.isfinite(skipped[-1]) else "–",
        f"{np.nanmedian(speeds):.3g}" if np.isfinite(speeds).any() else "–",
        f"{len(run.resumed)} ×" if run.resumed else "–",
    )
    return dict(zip(COLUMNS[1:], values, strict=True))


def _table(runs: Mapping[str, History]) -> str:
    head = "".join(f"<th>{name}</th>" for name in COLUMNS)
    rows = "".join(
        f'<tr><th scope="row"><i class="run-{number % len(LIGHT.runs)}"></i>{_text(name)}</th>'
        + "".join(f"<td>{escape(value)}</td>" for value in facts_of(run).values())
        + "</tr>"
        for number, (name, run) in enumerate(runs.items())
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"


def _figure(panel: Panel, runs: Mapping[str, History], width: float) -> str:
    """A picture for the light page and one for the dark."""
    light, dark = (
        f"data:image/svg+xml;base64,{base64.b64encode(svg_of(panel, runs, look, width)).decode()}"
        for look in (LIGHT, DARK)
    )
    told = escape(f"{panel.title} over the steps of {', '.join(runs)}")
    return (
        f'<figure><picture><source media="(prefers-color-scheme: dark)" srcset="{dark}" />'
        f'<img src="{light}" alt="{told}" /></picture></figure>'
    )


def _percent(rate: float) -> str:
    return f"{100 * rate:.2f} %"


def _text(text: str) -> str:
    """The text as HTML, isolated: right-to-left text in it does not reorder what stands around."""
    return f"<bdi>{escape(text)}</bdi>"
