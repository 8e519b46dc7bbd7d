"""HTML pages from Jinja templates. A page is one file that loads nothing and is valid XML."""

import base64
import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from whisper_ft.reports import text
from whisper_ft.reports.html.palette import CURVES, DARK, LIGHT

TEMPLATES = Path(__file__).parent / "templates"


def render_page(
    template: str,
    title: str,
    visible: Callable[[str], str] = text.visible,
    policy: str = "",
    script: str = "",
    **values: object,
) -> str:
    """Render a page from `templates/<template>.html.j2`, to which `values` are passed. A missing value is an error.

    Every text is escaped for HTML, after `visible` has replaced the characters that must not reach a page.

    The content policy of the page allows its own style sheet and script, identified by their hashes, and nothing else.
    So markup in a transcript could neither run nor load anything. `policy` adds directives, such as `img-src data:`.
    `script` is the name of a file in `templates/`; without it nothing on the page runs.
    """
    style, program = style_sheet(), (TEMPLATES / script).read_text(encoding="utf-8") if script else ""
    directives = [
        "default-src 'none'",
        f"style-src 'sha256-{_fingerprint(style)}'",
        f"script-src 'sha256-{_fingerprint(program)}'" if program else "",
        "base-uri 'none'",
        "form-action 'none'",
        policy,
    ]
    page = _environment(visible).get_template(f"{template}.html.j2")
    return page.render(title=title, style=style, program=program, policy="; ".join(filter(None, directives)), **values)


def _fingerprint(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


@cache
def style_sheet() -> str:
    """Return the style sheet of all pages: the palette, followed by `templates/style.css`."""
    curves = "\n".join(
        f".curve-{number} {{ --curve: {light}; --curve-dark: {dark}; }}" for number, (light, dark) in enumerate(CURVES)
    )
    return (
        f"\n:root {{ color-scheme: light dark; {LIGHT.css()} }}\n"
        f"@media (prefers-color-scheme: dark) {{ :root {{ {DARK.css()} }} }}\n{curves}\n"
        f"{(TEMPLATES / 'style.css').read_text(encoding='utf-8')}"
    )


@cache
def _environment(visible: Callable[[str], str]) -> Environment:
    def finalize(value: object) -> object:
        # Markup comes from a macro, whose texts have passed this function already.
        return visible(value) if isinstance(value, str) and not hasattr(value, "__html__") else value

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=finalize,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "clipped": text.clipped,
        "count": "{:,}".format,
        "duration": text.duration,
        "percent": text.percent,
        "percent_range": text.percent_range,
        "points": text.points,
        "points_range": text.points_range,
    }
    return environment
