"""Defines the style sheet of the report, light and dark, and the colours of its figures."""

from __future__ import annotations

# Each colour has a contrast of at least 3 with both backgrounds.
BLUE, ORANGE, GREEN, GREY = "#2f81d8", "#d9690f", "#1a936f", "#80868f"
# One for each feature, used again if there are more features; the name stands beside each curve.
COLOURS = (BLUE, ORANGE, GREEN, GREY)

# The browser draws a figure when it reads it, in the width that it has then. So there is a scroll bar from the start,
# and columns (`auto-fill`) keep their width when the next figure is read.
# Plotly writes colours into each element; `!important` overrides them, so that they follow light or dark.
# Shadows of `.scrolls` (L. Verou, "Pure CSS scrolling shadows", 2012): covers that scroll with the content hide the
# shadows at the ends.
STYLE = """
:root {
  --page: #ffffff; --raised: #f6f7f9; --ink: #1b1f27; --soft: #59616e; --line: #d9dde3; --link: #1f63b5;
  --good: #1b7f4d; --fair: #8a5a00; --bad: #b42318;
  --good-page: #eaf6ef; --fair-page: #fdf4e1; --bad-page: #fdeceb; --shadow: rgba(20, 30, 50, .38);
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #15171c; --raised: #1d2027; --ink: #e6e8ec; --soft: #a3abb8; --line: #363b45; --link: #79b4f5;
    --good: #4cc38a; --fair: #f0b64a; --bad: #ff8a7a;
    --good-page: #16281f; --fair-page: #2c2413; --bad-page: #321a18; --shadow: rgba(200, 215, 240, .38);
  }
}
* { box-sizing: border-box; }
html { overflow-y: scroll; background: var(--page); color: var(--ink); color-scheme: light dark;
  -webkit-text-size-adjust: 100%; }
body {
  max-width: 96rem; margin: 0 auto; padding: 1.5rem 1.25rem 3rem;
  font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
}
h1, h2, h3 { line-height: 1.25; overflow-wrap: anywhere; }
h1 { font-size: 1.35rem; margin: 0 0 1rem; font-weight: 600; }
h2 { font-size: 1.4rem; margin: 0 0 .75rem; }
h3 { font-size: 1.05rem; margin: 1.25rem 0 .5rem; }
p, ul { margin: .5rem 0; max-width: 62rem; overflow-wrap: anywhere; }
ul { padding-left: 1.25rem; }
a { color: var(--link); }
section { margin-top: 2rem; padding-top: 1.75rem; border-top: 1px solid var(--line); scroll-margin-top: .5rem; }
nav ul { display: flex; flex-wrap: wrap; gap: .25rem 1rem; padding: 0; margin: 1.25rem 0 0; list-style: none;
  max-width: none; }
code { font: .9em ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; overflow-wrap: anywhere; }
pre { font: .85rem/1.45 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; overflow-x: auto; margin: .5rem 0;
  padding: .75rem; background: var(--raised); border: 1px solid var(--line); border-radius: .4rem; }
.soft, figcaption, .note, .label, footer { color: var(--soft); }
footer { margin-top: 2.5rem; font-size: .9rem; }

.verdict { border: 1px solid var(--line); border-left: .4rem solid var(--soft); border-radius: .5rem;
  padding: 1rem 1.25rem; background: var(--raised); }
.verdict h2 { margin: 0; font-size: 1.6rem; }
.verdict p, .verdict ul { margin: .4rem 0 0; max-width: none; }
.verdict details { margin: .5rem 0 0; }
.verdict.go { border-left-color: var(--good); background: var(--good-page); }
.verdict.go h2 { color: var(--good); }
.verdict.look { border-left-color: var(--fair); background: var(--fair-page); }
.verdict.look h2 { color: var(--fair); }
.verdict.stop { border-left-color: var(--bad); background: var(--bad-page); }
.verdict.stop h2 { color: var(--bad); }

.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(10.5rem, 100%), 1fr)); gap: .75rem;
  margin-top: .75rem; }
.card { border: 1px solid var(--line); border-radius: .5rem; padding: .75rem 1rem; background: var(--raised); }
.card p { margin: 0; }
.card .label { font-size: .9rem; }
.card .value { font-size: 1.7rem; font-weight: 600; line-height: 1.3; font-variant-numeric: tabular-nums; }
.card .note { font-size: .9rem; margin-top: .2rem; }
.card.go .value { color: var(--good); }
.card.look .value { color: var(--fair); }
.card.stop .value { color: var(--bad); }

.figures { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(27rem, 100%), 1fr)); gap: 1rem 1.5rem; }
figure { margin: 0; min-width: 0; }
.tables { display: flex; flex-wrap: wrap; align-items: flex-start; gap: 0 3rem; }
.tables > * { flex: none; max-width: 100%; }
figure h3 { margin-top: .75rem; }
figcaption { font-size: .92rem; max-width: 62rem; }

.scrolls { overflow-x: auto; margin: .75rem 0;
  background:
    linear-gradient(to right, var(--page) 40%, transparent) left / 2.5rem 100% local,
    linear-gradient(to left, var(--page) 40%, transparent) right / 2.5rem 100% local,
    linear-gradient(to right, var(--shadow), transparent) left / 1rem 100% scroll,
    linear-gradient(to left, var(--shadow), transparent) right / 1rem 100% scroll;
  background-repeat: no-repeat; }
.scrolls caption { position: sticky; left: 0; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .95rem; }
caption { text-align: left; font-weight: 600; padding-bottom: .4rem; }
th, td { padding: .35rem .8rem .35rem 0; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }
thead th { color: var(--soft); font-weight: 500; font-size: .88rem; vertical-align: bottom; }
tbody th { font-weight: 500; }
.numbers td, .numbers thead th:not(:first-child) { text-align: right; white-space: nowrap; }
.numbers td:last-child, .numbers thead th:last-child { padding-right: 0; }
.meaning { display: inline-block; min-width: 13rem; color: var(--soft); text-align: left; white-space: normal; }
.numbers td:has(.meaning) { text-align: left; padding-left: 1rem; }
.texts ol { margin: 0; padding-left: 1.2rem; }
details { margin: .75rem 0; }
summary { cursor: pointer; color: var(--link); }

.js-plotly-plot .plotly .main-svg { background: transparent !important; }
.js-plotly-plot .cartesianlayer text, .js-plotly-plot .infolayer text { fill: var(--ink) !important; }
.js-plotly-plot .gridlayer path { stroke: var(--line) !important; }
.js-plotly-plot .zl { stroke: var(--soft) !important; }
@media (max-width: 30rem) {
  body { padding: 1rem .9rem 2rem; }
  .verdict, .card { padding: .75rem .85rem; }
  .cards { gap: .5rem; }
  .verdict h2 { font-size: 1.25rem; }
  .verdict p, .verdict ul { font-size: .95rem; }
  .cards { grid-template-columns: 1fr 1fr; }
  .card .value { font-size: 1.35rem; }
  /* Numbers do not wrap, and would leave row names one or two letters a line. */
  tbody th { min-width: 7.5rem; }
}
"""
