"""The look of a report: on paper, on a phone, by day and by night."""

from __future__ import annotations

STYLE = """\
:root {
  --ink: #222; --faint: #5c5c5c; --paper: #fff; --line: #d5d5d5; --raised: #f5f5f5; --strong: #00568a; --alarm: #a3001d;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ink: #e6e6e6; --faint: #a8a8a8; --paper: #181a1b; --line: #3d4144; --raised: #222527; --strong: #7cc4f0;
    --alarm: #ff8a9a;
  }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 1rem/1.5 system-ui, sans-serif; }
main { max-width: 78rem; margin: 0 auto; padding: 1rem 1rem 4rem; }
h1, h2, h3, h4 { line-height: 1.25; overflow-wrap: anywhere; }
h1 { font-size: 1.7rem; }
h2 { font-size: 1.4rem; margin: 3rem 0 0.75rem; padding-top: 1rem; border-top: 2px solid var(--line); }
h3 { font-size: 1.15rem; margin: 2rem 0 0.5rem; }
h4 { font-size: 1rem; margin: 1.5rem 0 0.5rem; }
p, li, figcaption, summary { overflow-wrap: anywhere; }
p, ul { max-width: 60rem; }
a { color: var(--strong); }
code { font-family: ui-monospace, monospace; font-size: 0.9em; }
.wide { overflow-x: auto; max-width: 100%; }
.wide:focus-visible, summary:focus-visible, a:focus-visible { outline: 2px solid var(--strong); outline-offset: 2px; }
table { border-collapse: collapse; margin: 0.5rem 0; font-size: 0.9rem; font-variant-numeric: tabular-nums; }
th, td { padding: 0.3rem 0.75rem; border-bottom: 1px solid var(--line); white-space: nowrap; }
th, td { text-align: left; vertical-align: top; }
.long { white-space: normal; min-width: 16rem; max-width: 40rem; overflow-wrap: anywhere; }
.number { text-align: right; }
thead th { background: var(--raised); }
tbody th { font-weight: 500; }
figure { margin: 1rem 0; }
figure .wide { width: fit-content; background: #fff; border: 1px solid var(--line); }
img { display: block; max-width: 100%; height: auto; }
figcaption { max-width: 60rem; color: var(--faint); font-size: 0.9rem; margin-top: 0.35rem; }
.faint { color: var(--faint); }
.notice { border-left: 4px solid var(--alarm); background: var(--raised); padding: 0.25rem 1rem; margin: 1rem 0; }
details { margin: 0.5rem 0; }
summary { cursor: pointer; color: var(--strong); padding: 0.25rem 0; }
@media (max-width: 45rem) {
  main { padding: 0.75rem 0.75rem 3rem; }
  h1 { font-size: 1.35rem; }
  h2 { font-size: 1.2rem; }
  th, td { padding: 0.3rem 0.5rem; }
  /* Shrunk to the width of a phone, the words in a picture could not be read: it scrolls. */
  figure .wide { width: auto; }
  img { max-width: none; }
}
@media print {
  .wide { overflow: visible; }
  figure, tr { break-inside: avoid; }
}
"""
