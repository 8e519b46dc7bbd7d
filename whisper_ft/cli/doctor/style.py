"""The looks of the page, as far as html_page does not have them: light and dark, desktop and phone."""

STYLE = """
:root { --good: #4c9a79; --fair: #d98a1f; --poor: #cf3f36; --bar: #3b78c9;
  --good-paper: #e2f1ea; --good-ink: #1c573e; --fair-paper: #fcefd9; --fair-ink: #7a4600;
  --poor-paper: #fbe3e1; --poor-ink: #931d16; --bar-paper: #e0ebfa; --bar-ink: #134a8e; }
@media (prefers-color-scheme: dark) { :root { --good: #4f9e7e; --fair: #d8932f; --poor: #df5a50; --bar: #5a93dd;
  --good-paper: #17382b; --good-ink: #a9e2c9; --fair-paper: #43310f; --fair-ink: #ffd696;
  --poor-paper: #4a1f1d; --poor-ink: #ffb9b3; --bar-paper: #1b3352; --bar-ink: #b9d6ff; } }
h2 { font-size: 1.05rem; margin-bottom: 10px; }
.card h2::first-letter { text-transform: uppercase; }
h3 { font-size: .95rem; font-weight: 600; display: flex; flex-wrap: wrap; gap: 0 12px; align-items: baseline; }
ul { list-style: none; padding: 0; }
small, .soft, dt, .axis { color: var(--soft); font-weight: 400; }
small, .soft { font-size: .85rem; }
.headline, .card { background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: 20px 24px;
  margin-top: 20px; min-width: 0; }
.headline { margin-top: 0; }
.headline dl { display: flex; flex-wrap: wrap; gap: 16px 44px; }
dt { font-size: .85rem; }
dd { font-size: 1.45rem; font-weight: 650; letter-spacing: -.02em; }
.verdict { margin-top: 20px; padding: 14px 24px; border-radius: 12px; }
.verdict h2 { margin-bottom: 4px; }
.verdict li { padding: 3px 0; font-size: .92rem; }
.verdict.good { background: var(--good-paper); color: var(--good-ink); font-weight: 600; }
.verdict.poor { background: var(--poor-paper); color: var(--poor-ink); }
.columns { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 330px), 1fr)); gap: 0 20px; }
.histogram { display: block; width: 100%; max-width: 520px; margin: 0 auto 8px; }
.histogram text { font-size: 11px; text-anchor: middle; fill: var(--soft); }
.histogram .number { text-anchor: end; }
.histogram path { stroke: var(--line); }
.histogram .bar { fill: var(--bar); }
.histogram .over { fill: var(--fair); }
.found { border-inline-start: 3px solid var(--line); padding: 1px 0 1px 12px; margin: 8px 0; font-size: .95rem; }
.found.fair { border-inline-start-color: var(--fair); }
.found.poor { border-inline-start-color: var(--poor); }
.found.good p { color: var(--soft); }
.found.good b { font-weight: 400; }
.found ul { font-size: .85rem; color: var(--soft); }
.found span { white-space: pre; }
.letters { display: flex; flex-wrap: wrap; gap: 6px; margin: 10px 0 4px; }
.letters li { border: 1px solid var(--line); border-radius: 8px; padding: 1px 9px; font-size: .85rem;
  color: var(--soft); }
.letters b { color: var(--ink); font-size: 1rem; font-weight: 600; margin-inline-end: 3px; }
.letters .odd { border-color: var(--poor); background: var(--poor-paper); color: var(--poor-ink); }
.letters .odd b { color: var(--poor-ink); }
.wide { overflow-x: auto; margin: 8px 0; }
table { border-collapse: collapse; font-size: .92rem; overflow-wrap: normal; }
th, td { text-align: end; padding: 5px 14px 5px 0; border-top: 1px solid var(--line); white-space: nowrap; }
th { color: var(--soft); font-weight: 400; font-size: .85rem; }
th:first-child, td:first-child { text-align: start; }
thead th { border: 0; }
article { padding: 14px 0 4px; border-top: 1px solid var(--line); margin-top: 14px; }
.written { font-size: 1.05rem; margin-top: 2px; }
.tokens th, .tokens td { text-align: center; padding: 4px 7px; border: 1px solid var(--line); min-width: 2.4em; }
.tokens th { position: sticky; left: 0; background: var(--card); text-align: start; }
.tokens td { white-space: pre; }
.tokens small { display: block; font-size: .75rem; }
.tokens .prompt { background: var(--bar-paper); color: var(--bar-ink); }
.tokens .masked, .tokens .masked small { color: var(--line); }
@media (max-width: 720px) {
  body { padding: 20px 14px 48px; }
  .headline, .card, .verdict { padding: 16px; }
  .headline dl { display: grid; grid-template-columns: 1fr 1fr; gap: 14px 12px; }
  dd { font-size: 1.2rem; }
}
"""
