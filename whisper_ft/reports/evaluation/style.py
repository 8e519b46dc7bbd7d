"""The looks of the page, as far as html_page does not have them: light and dark, desktop and phone."""

STYLE = """
:root { --hit: #4c9a79; --sub: #d98a1f; --del: #cf3f36; --ins: #3b78c9;
  --sub-paper: #fcefd9; --del-paper: #fbe3e1; --ins-paper: #e0ebfa;
  --sub-ink: #7a4600; --del-ink: #931d16; --ins-ink: #134a8e; --hit-paper: #e2f1ea; --hit-ink: #1c573e; }
@media (prefers-color-scheme: dark) { :root { --hit: #4f9e7e; --sub: #d8932f; --del: #df5a50; --ins: #5a93dd;
  --sub-paper: #43310f; --del-paper: #4a1f1d; --ins-paper: #1b3352;
  --sub-ink: #ffd696; --del-ink: #ffb9b3; --ins-ink: #b9d6ff; --hit-paper: #17382b; --hit-ink: #a9e2c9; } }
h2 { font-size: 1.05rem; margin-bottom: 12px; }
h3 { font-size: .95rem; }
section { margin-top: 36px; }
small, .soft, dt, .axis { color: var(--soft); font-weight: 400; }
small, .soft { font-size: .85rem; }
ul, ol { list-style: none; padding: 0; }
i { display: inline-block; width: .7em; height: .7em; border-radius: 2px; margin-inline-end: .4em; }
i.hit { background: var(--hit); } i.sub { background: var(--sub); } i.del { background: var(--del); }
i.ins { background: var(--ins); } i.even { background: var(--line); }
rect.hit { fill: var(--hit); } rect.sub { fill: var(--sub); } rect.del { fill: var(--del); }
rect.ins, rect.rate { fill: var(--ins); } rect.even { fill: var(--soft); } rect.few { fill: var(--line); }
.shares rect.even { fill: var(--line); }
.headline, article, .columns > section { background: var(--card); border: 1px solid var(--line); border-radius: 12px; }
.headline { margin-top: 0; padding: 24px; display: grid; grid-template-columns: auto auto 1fr; gap: 20px 48px; }
.rate h2 { color: var(--soft); margin: 0; font-size: .95rem; letter-spacing: .06em; }
.rate strong { font-size: 3.4rem; line-height: 1.1; letter-spacing: -.03em; font-weight: 650; white-space: nowrap; }
.rate p { font-size: .9rem; }
.headline dl { display: grid; grid-template-columns: auto auto; gap: 12px 28px; align-self: center; justify-self: end; }
dt { font-size: .85rem; }
.headline dd { font-size: 1.2rem; font-weight: 600; }
.shares { grid-column: 1 / -1; }
.shares svg { display: block; background: var(--line); width: 100%; height: 14px; border-radius: 7px; }
.shares ul { display: flex; flex-wrap: wrap; gap: 4px 24px; margin-top: 10px; font-size: .9rem; }
.notes { margin-top: 20px; padding: 12px 24px; border-radius: 12px; font-size: .92rem;
  background: var(--sub-paper); color: var(--sub-ink); }
.notes li { padding: 2px 0; }
.columns { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 330px), 1fr)); gap: 20px;
  margin-top: 20px; }
.columns > section { margin: 0; padding: 20px 24px; display: flex; flex-direction: column; }
.histogram { width: 100%; max-width: 520px; margin: auto; }
.histogram text { font-size: 11px; text-anchor: middle; fill: var(--ink); }
.histogram .axis { fill: var(--soft); }
.histogram path { stroke: var(--line); }
.facts > div { display: grid; grid-template-columns: minmax(90px, 30%) 1fr; gap: 12px; padding: 5px 0;
  border-top: 1px solid var(--line); font-size: .92rem; }
.facts > div:first-child { border: 0; }
.mistakes { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 220px), 1fr)); gap: 20px; }
.mistakes h3 { margin-bottom: 6px; }
.mistakes li { padding: 2px 0; }
.mistakes b { display: inline-block; min-width: 3em; color: var(--soft); font-weight: 400; }
article { padding: 12px 16px; margin-top: 10px; border-inline-start: 4px solid var(--line);
  content-visibility: auto; contain-intrinsic-size: auto 130px; }
article.good { border-inline-start-color: var(--hit); }
article.fair { border-inline-start-color: var(--sub); }
article.poor { border-inline-start-color: var(--del); }
article h3 { font-weight: 400; display: flex; flex-wrap: wrap; gap: 2px 10px; align-items: baseline; }
article h3 small { margin-inline-start: auto; }
article em { font-style: normal; font-size: .78rem; padding: 0 8px; border-radius: 9px;
  background: var(--sub-paper); color: var(--sub-ink); }
.key i + i { margin-inline-start: 1em; }
.aligned { margin: 8px -4px 4px; }
.aligned > span { display: inline-grid; vertical-align: top; margin: 2px 0; max-width: 100%; }
.aligned > span > * { padding: 0 4px; min-height: 1.5em; white-space: pre-wrap; text-decoration: none; }
.aligned .hit :last-child { color: var(--soft); }
.aligned > span > * { unicode-bidi: plaintext; }
.aligned del { border-radius: 4px 4px 0 0; } .aligned ins { border-radius: 0 0 4px 4px; }
.aligned .sub > * { background: var(--sub-paper); color: var(--sub-ink); }
.aligned .del > * { background: var(--del-paper); color: var(--del-ink); border-radius: 4px; }
.aligned .ins > * { background: var(--ins-paper); color: var(--ins-ink); border-radius: 4px; }
.aligned .del > del { text-decoration: line-through; }
.headline > .drawn { grid-column: 1 / -1; margin-top: -8px; }
.rate .interval { color: var(--soft); margin-top: 2px; }
.whisker { stroke: var(--ink); stroke-width: 1.6; fill: none; vector-effect: non-scaling-stroke; }
.histogram .whisker { stroke: var(--ink); }
.overall { stroke: var(--ink); stroke-dasharray: 2 2; vector-effect: non-scaling-stroke; opacity: .75; }
table { border-collapse: collapse; width: 100%; font-size: .92rem; overflow-wrap: break-word; }
th, td { text-align: end; padding: 6px 0 6px 12px; border-top: 1px solid var(--line); font-weight: 400; }
th { text-align: start; padding-inline-start: 0; }
th small { display: block; line-height: 1.35; }
td { white-space: nowrap; }
thead th, thead td { border: 0; color: var(--soft); font-size: .85rem; padding-top: 0; white-space: normal; }
tr.first th bdi, tr.first td { font-weight: 650; }
tr.few { color: var(--soft); }
th > i { all: unset; color: var(--soft); }
td.bar { width: 40%; }
td.bar svg { display: block; width: 100%; height: 16px; }
.ordered td.bar { display: none; }
.columns > :last-child:nth-child(odd) { grid-column: 1 / -1; }
.columns > :last-child:nth-child(odd) .facts { column-width: 330px; column-gap: 40px; }
.facts > div { break-inside: avoid; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: 20px 24px; }
.card + .card { margin-top: 14px; }
.card h3 { margin-bottom: 10px; }
.card > p.soft { margin-top: 10px; }
.beside { display: grid; grid-template-columns: minmax(0, 5fr) minmax(0, 6fr); gap: 12px 40px; align-items: center; }
.signs { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 300px), 1fr)); gap: 12px;
  align-items: start; }
.sign { background: var(--card); border: 1px solid var(--line); border-radius: 12px;
  padding: 14px 18px; }
.sign:has([open]) { grid-column: 1 / -1; }
.sign .top { display: flex; gap: 14px; align-items: center; margin-bottom: 8px; }
.sign strong { font-size: 1.7rem; line-height: 1; font-weight: 650; color: var(--soft); min-width: 1.4em; }
.sign.seen strong { color: var(--del); }
.sign details { margin-top: 8px; }
.sign article, .changes article { border-block: 1px solid var(--line); }
.verdict { padding: 8px 14px; border-radius: 8px; background: var(--paper); font-weight: 600; }
.verdict.hit { background: var(--hit-paper); color: var(--hit-ink); }
.verdict.del { background: var(--del-paper); color: var(--del-ink); }
.pair { display: grid; grid-template-columns: minmax(0, 5fr) minmax(0, 4fr); gap: 16px 48px; align-items: center;
  margin: 18px 0 20px; }
.pair dl { display: grid; grid-template-columns: 1fr 1fr; gap: 14px 24px; }
.pair dd { font-size: 1.45rem; font-weight: 650; letter-spacing: -.02em; }
.pair dd small { display: block; letter-spacing: 0; }
.change { display: block; width: 100%; height: auto; }
.change path { stroke: var(--line); stroke-width: 2; } .change .zero { stroke: var(--ink); }
.change rect { opacity: .65; } .change circle { fill: var(--ink); }
.ends { display: flex; justify-content: space-between; }
.changes > details { margin-top: 14px; }
.changes > details > summary b { color: var(--ink); font-size: .95rem; }
.changes .key { margin-top: 8px; }
audio { display: block; width: 100%; max-width: 420px; height: 36px; margin: 6px 0; }
summary { cursor: pointer; color: var(--soft); font-size: .85rem; width: fit-content; }
.written { margin-top: 4px; font-size: .92rem; }
.written > * { display: block; }
@media (max-width: 720px) {
  body { padding: 20px 14px 48px; }
  .headline { grid-template-columns: 1fr 1fr; padding: 18px; gap: 18px 12px; }
  .rate strong { font-size: min(2.5rem, 8.2vw); }
  .columns > section { padding: 16px; }
  .headline dl { grid-column: 1 / -1; justify-self: stretch; }
  article h3 small { margin-inline-start: 0; flex-basis: 100%; }
  .more { display: none; }
  .pair, .beside { grid-template-columns: minmax(0, 1fr); }
  .card { padding: 16px; }
  td.bar { width: 24%; }
}
"""
