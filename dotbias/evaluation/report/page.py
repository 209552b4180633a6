"""Makes the parts of an HTML page from text, numbers and figures; MarkupSafe escapes all values."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from markupsafe import Markup, escape
from plotly.offline import get_plotlyjs

from dotbias.evaluation.report.style import STYLE

Cell = str | Markup


class Section(NamedTuple):
    """Holds a section of the page; `anchor` is its id, for links."""

    anchor: str
    title: str
    content: Markup


_PAGE = Markup("""\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<link rel="icon" href="data:,">
<style>{style}</style>
<script>window.PlotlyConfig = {{MathJaxConfig: "local"}};</script>
<script>{plotly}</script>
</head>
<body>
<header>
<h1>{title}</h1>
{summary}
<nav aria-label="Sections"><ul>{links}</ul></nav>
</header>
<script>
if (matchMedia("(max-width: 40rem)").matches)
  document.querySelectorAll("details.narrow").forEach(part => part.removeAttribute("open"));
</script>
<main>
<noscript><p>The figures need JavaScript. The tables have most of their numbers.</p></noscript>
{sections}
</main>
<footer><p>{footer}</p></footer>
</body>
</html>
""")


def page(title: str, summary: Markup, sections: Sequence[Section], footer: str) -> str:
    """Makes a whole page, with the style sheet and plotly.js in it, so that it needs no other file."""
    link = Markup('<li><a href="#{}">{}</a></li>')
    part = Markup('<section id="{0}" aria-labelledby="{0}-title">\n<h2 id="{0}-title">{1}</h2>\n{2}\n</section>')
    whole = _PAGE.format(
        title=title,
        style=Markup(STYLE),  # noqa: S704 - a constant
        plotly=Markup(get_plotlyjs()),  # noqa: S704 - a file of the package
        summary=summary,
        links=joined(link.format(section.anchor, section.title) for section in sections),
        sections=joined(part.format(*section) for section in sections),
        footer=footer,
    )
    # A plain string, since a whole page is not put into another one.
    return str(whole)


def joined(parts: Iterable[Cell]) -> Markup:
    return Markup("\n").join(parts)


def paragraph(text: Cell, kind: str = "") -> Markup:
    return Markup('<p class="{}">{}</p>').format(kind, text) if kind else Markup("<p>{}</p>").format(text)


def subtitle(text: str) -> Markup:
    return Markup("<h3>{}</h3>").format(text)


def bullets(items: Iterable[Cell]) -> Markup:
    return Markup("<ul>{}</ul>").format(joined(Markup("<li>{}</li>").format(item) for item in items))


def table(caption: str, header: Sequence[str], rows: Iterable[Sequence[Cell]], numbers: bool = True) -> Markup:
    """Makes a table whose first column names its rows; the other columns are numbers, aligned right, by default.

    A table that is wider than the page scrolls sideways, also with the keyboard; a shadow at its edge shows that.
    """
    head = joined(Markup('<th scope="col">{}</th>').format(name) for name in header)
    body = joined(
        Markup('<tr><th scope="row">{}</th>{}</tr>').format(
            first, Markup().join(Markup("<td>{}</td>").format(cell) for cell in rest)
        )
        for first, *rest in rows
    )
    return Markup(
        '<div class="scrolls" role="region" aria-label="{0}" tabindex="0"><table class="{1}">'
        "<caption>{0}</caption><thead><tr>{2}</tr></thead><tbody>\n{3}\n</tbody></table></div>"
    ).format(caption, "numbers" if numbers else "texts", head, body)


def figure(title: str, drawing: Markup, look: Cell, says: str) -> Markup:
    """Makes a figure: the drawing, advice how to read it (`look`, may be empty), and its content as text (`says`)."""
    caption = Markup("\n<figcaption>{}</figcaption>").format(look) if look else ""
    return Markup('<figure>\n<h3>{0}</h3>\n<div role="img" aria-label="{0}: {1}">{2}</div>{3}\n</figure>').format(
        title, says, drawing, caption
    )


def side_by_side(*figures: Markup) -> Markup:
    """Puts figures side by side where the page is wide enough, below each other elsewhere."""
    return Markup('<div class="figures">\n{}\n</div>').format(joined(figures))


def tables_in_a_row(*tables: Markup) -> Markup:
    """Puts tables side by side where the page is wide enough; no table is made narrower."""
    return Markup('<div class="tables">\n{}\n</div>').format(joined(tables))


def folded(summary: str, content: Markup) -> Markup:
    return Markup("<details><summary>{}</summary>\n{}\n</details>").format(summary, content)


def folded_when_narrow(summary: str, content: Markup) -> Markup:
    """Makes a part that is open on a wide screen and folded on a narrow one, where it would fill the screen."""
    return Markup('<details class="narrow" open><summary>{}</summary>\n{}\n</details>').format(summary, content)


def card(label: str, value: str, note: Cell, kind: str = "") -> Markup:
    """Makes a box with a label, a number and a note."""
    return Markup(
        '<div class="card {}"><p class="label">{}</p><p class="value">{}</p><p class="note">{}</p></div>'
    ).format(kind, label, value, note)


def code(text: str) -> Markup:
    return Markup("<code>{}</code>").format(text)


def with_code(text: str) -> Markup:
    """Marks text between backticks as code."""
    parts = text.split("`")
    # A backtick without a partner is a plain character.
    plain_end = "`" + parts.pop() if len(parts) % 2 == 0 else ""
    return Markup().join(code(part) if odd % 2 else escape(part) for odd, part in enumerate(parts)) + plain_end
