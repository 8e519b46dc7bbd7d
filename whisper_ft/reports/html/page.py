"""The frame of the pages that are written for people: one file that loads nothing, runs nothing and is valid XML."""

import base64
import hashlib
from html import escape

# What all pages share: paper and ink by day and by night, the measure of the text.
BASE_STYLE = """
:root { color-scheme: light dark; --paper: #f6f5f2; --card: #fff; --ink: #1f1e1b; --soft: #66635c; --line: #e3e0d9; }
@media (prefers-color-scheme: dark) { :root { --paper: #161618; --card: #1f1f22; --ink: #eceae5; --soft: #a5a29a;
  --line: #36363b; } }
* { box-sizing: border-box; margin: 0; }
body { background: var(--paper); color: var(--ink); max-width: 1040px; margin: auto; padding: 32px 20px 64px;
  font: 16px/1.5 system-ui, "Segoe UI", Roboto, "Noto Sans", sans-serif; font-variant-numeric: tabular-nums;
  overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; line-height: 1.25; margin-bottom: 20px; }
"""


def html_page(title: str, style: str, body: str, allowed: str = "") -> str:
    """A page of some content, which is well-formed XML already; `title` is plain text.

    No style without its hash and nothing else at all: what a transcript smuggles in could still neither run nor load.
    `allowed` are further directives of the content policy: `img-src data:`.
    """
    style = BASE_STYLE + style
    fingerprint = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    directives = (
        "default-src 'none'",
        f"style-src 'sha256-{fingerprint}'",
        "base-uri 'none'",
        "form-action 'none'",
        allowed,
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8" />
<meta http-equiv="Content-Security-Policy" content="{"; ".join(filter(None, directives))}" />
<meta name="viewport" content="width=device-width, initial-scale=1" />
<meta name="color-scheme" content="light dark" />
<title>{escape(title)}</title>
<style>{style}</style>
</head>
<body>
{body}
</body>
</html>
"""
