"""The report's style sheet: light and dark, wide and narrow, screen and paper."""

CSS = """
:root {
  color-scheme: light dark;
  --paper: #fbfbf9; --card: #ffffff; --ink: #1c1e21; --soft: #5d646d; --line: #e3e4e0;
  --before: #cfd6de; --after: #2f6f8f; --mark: #b4472e; --drop: #c98a3c; --reject: #b4472e;
  --code: #f4f4f1;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #15171a; --card: #1d2024; --ink: #e7e8ea; --soft: #a1a8b1; --line: #32363c;
    --before: #47505b; --after: #62aecf; --mark: #ef8a6c; --drop: #d9a45f; --reject: #ef8a6c;
    --code: #24282d;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body {
  margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif;
}
main { max-width: 66rem; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .25rem; letter-spacing: -.015em;
  overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 3rem 0 .9rem; letter-spacing: -.005em; }
h3 { font-size: 1rem; margin: 1.75rem 0 .6rem; font-weight: 600; }
h3 .count { color: var(--soft); font-weight: 400; }
p { margin: .4rem 0; max-width: 46rem; }
.soft { color: var(--soft); }
code, pre {
  font: .84em/1.5 ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace;
}
code { overflow-wrap: anywhere; }
.figures-row { display: grid; gap: .75rem; margin: 1.5rem 0 1.25rem;
  grid-template-columns: repeat(auto-fit, minmax(8.2rem, 1fr)); }
.fact { background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: .8rem 1rem .75rem; }
.fact b { display: block; font-size: 1.5rem; line-height: 1.25; font-weight: 650;
  font-variant-numeric: tabular-nums; letter-spacing: -.01em; }
.fact span { color: var(--soft); font-size: .875rem; }
.flow { display: flex; height: .85rem; border-radius: 6px; overflow: hidden; gap: 2px; }
.flow i { display: block; min-width: 2px; }
.kept { background: var(--after); } .dropped { background: var(--drop); }
.rejected { background: var(--reject); } .all { background: var(--before); }
.legend { display: flex; flex-wrap: wrap; gap: .2rem 1.25rem; font-size: .875rem;
  color: var(--soft); margin: .6rem 0 0; padding: 0; list-style: none; }
.legend i { display: inline-block; width: .7rem; height: .7rem; border-radius: 3px;
  margin-right: .4rem; vertical-align: -.04rem; }
.legend .dash { height: 0; border-top: 2px dashed var(--mark); border-radius: 0;
  vertical-align: .25rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .9375rem; }
th { text-align: left; font-weight: 600; color: var(--soft); font-size: .8125rem;
  border-bottom: 1px solid var(--line); padding: .3rem .75rem .4rem 0; white-space: nowrap; }
td { border-bottom: 1px solid var(--line); padding: .45rem .75rem .45rem 0; vertical-align: top;
  overflow-wrap: anywhere; }
td:first-child { min-width: 5.5rem; overflow-wrap: normal; }
tr > :last-child { padding-right: 0; }
.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.n + td:not(.n), .n + th:not(.n) { padding-left: 1rem; }
.bar { width: 34%; min-width: 6rem; vertical-align: middle; }
.bar i { display: block; height: .6rem; border-radius: 3px; min-width: 2px; }
tfoot td { font-weight: 600; border-bottom: 0; }
.grid { display: grid; gap: 1rem; align-items: start;
  grid-template-columns: repeat(auto-fill, minmax(min(27rem, 100%), 1fr)); }
figure { margin: 0; background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: 1rem 1.1rem .8rem; min-width: 0; }
figcaption { font-weight: 600; font-size: .9375rem; margin-bottom: .5rem; }
figure svg { display: block; width: 100%; height: auto; overflow: visible; }
figure svg text { font-family: inherit !important; }
details { margin-top: .6rem; font-size: .875rem; }
summary { cursor: pointer; color: var(--soft); }
details table { font-size: .8125rem; margin-top: .4rem; }
details .scroll { max-height: 20rem; overflow-y: auto; }
.sample { background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: .75rem .9rem; min-width: 0; }
.sample .path { font-weight: 600; font-size: .875rem; overflow-wrap: anywhere; }
.sample .about { color: var(--soft); font-size: .8125rem; }
pre { margin: .6rem 0 0; background: var(--code); border-radius: 7px; padding: .6rem .75rem;
  overflow-x: auto; font-size: .75rem; max-height: 19rem; tab-size: 4; }
.pictures { display: grid; gap: .75rem;
  grid-template-columns: repeat(auto-fill, minmax(10rem, 1fr)); }
.sample img { display: block; width: 100%; height: 8.5rem; object-fit: contain; border-radius: 6px;
  background: var(--code); margin-bottom: .5rem; }
.none { height: 8.5rem; display: grid; place-items: center; background: var(--code);
  border-radius: 6px; color: var(--soft); font-size: .8125rem; margin-bottom: .5rem; }
footer { margin-top: 3.5rem; padding-top: 1rem; border-top: 1px solid var(--line);
  color: var(--soft); font-size: .8125rem; overflow-wrap: anywhere; }
@media (max-width: 40rem) {
  main { padding: 1.5rem 1rem 3rem; }
  h1 { font-size: 1.5rem; } h2 { margin-top: 2.25rem; }
  .figures-row { grid-template-columns: 1fr 1fr; }
  .fact b { font-size: 1.25rem; }
  td.bar, th.bar { display: none; }
  .pictures { grid-template-columns: 1fr 1fr; }
}
@media print {
  :root { --paper: #fff; --card: #fff; --ink: #000; --soft: #444; --line: #ccc; --code: #f4f4f4;
    --before: #cfd6de; --after: #2f6f8f; --mark: #b4472e; --drop: #c98a3c; --reject: #b4472e; }
  body { font-size: 10pt; } main { max-width: none; padding: 0; }
  i, .flow { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  figure, .sample, tr { break-inside: avoid; } h2, h3 { break-after: avoid; }
  pre, details .scroll { max-height: none; overflow: visible; white-space: pre-wrap; }
}
"""
