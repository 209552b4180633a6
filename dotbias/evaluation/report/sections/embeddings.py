"""Shows what the model has learned about ids."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import plotly.graph_objects as go
from markupsafe import Markup

from dotbias.evaluation.exported.embeddings import Embedding, Neighbour, neighbours, norms
from dotbias.evaluation.formats import number
from dotbias.evaluation.report.charts import Array, chart, drawn, log_spaced, logarithmic, plain
from dotbias.evaluation.report.page import figure, joined, paragraph, side_by_side, subtitle, table
from dotbias.evaluation.report.style import COLOURS

# Items with fewer train rows are not shown as neighbours: their vectors are mostly chance.
_LEAST_COUNT = 10
_ITEMS, _NEIGHBOURS = 8, 5
# Points drawn for each feature; medians use all ids.
_POINTS = 1500
_BINS = 12
# A median of fewer ids is one of their values.
_LEAST_IDS = 3


def embeddings_section(embeddings: Mapping[str, Embedding], titles: Mapping[str, Mapping[str, str]]) -> Markup:
    """Makes lengths and biases against frequency, and the nearest neighbours of items, by title if there is one."""
    parts = [
        side_by_side(
            _against_frequency(
                embeddings,
                "Length of vectors",
                norms,
                "The longer a vector, the more it changes predictions. The median should rise from rare to frequent "
                "ids, since L2 keeps rare ids short. If rare ids have the longest vectors, the model overfits: raise "
                "l2. If all vectors are short, they add nothing to the biases.",
            ),
            _against_frequency(
                embeddings,
                "Bias",
                lambda rows: rows[:, -1],
                "A bias says how much more an item is liked than others, or how much more a user likes, whatever the "
                "other side is. Rare ids should have biases near 0, since a few rows are little evidence. If the "
                "median rises, frequent ids are also liked more.",
            ),
        )
    ]
    for name, embedding in embeddings.items():
        if embedding.side == "item":
            parts += [subtitle(f"Nearest neighbours: {name}"), _neighbours(name, embedding, titles.get(name, {}))]
    return joined(parts)


def _against_frequency(
    embeddings: Mapping[str, Embedding], title: str, measure: Callable[[Array], Array], look: str
) -> Markup:
    """Plots a number of each id against its train rows; `measure` maps `[rows, dim]` of a table to `[rows]`."""
    drawing = chart("train rows of the id", title.lower(), showlegend=True)
    said, extremes = [], [1.0]
    for (name, embedding), colour in zip(embeddings.items(), COLOURS * len(embeddings), strict=False):
        seen = np.flatnonzero(embedding.counts > 0)
        if not embedding.is_hashed:
            seen = seen[seen < embedding.vocabulary_size]
        if not len(seen):
            continue
        counts, values = embedding.counts[seen], measure(embedding.table[seen])
        shown = np.sort(np.random.default_rng(0).permutation(len(seen))[:_POINTS])
        label = plain(name)
        drawing.add_trace(
            go.Scatter(
                x=counts[shown],
                y=values[shown],
                legendgroup=label,
                showlegend=False,
                mode="markers",
                marker={"color": colour, "size": 4, "opacity": 0.3},
                hovertemplate="%{x:,} rows: %{y:.3f}<extra>" + label + "</extra>",
            )
        )
        x, median = medians(counts, values)
        drawing.add_trace(
            go.Scatter(
                x=x,
                y=median,
                name=f"{label}, median",
                legendgroup=label,
                mode="lines",
                line={"color": colour, "width": 3},
                hovertemplate="median at %{x:,.0f} rows: %{y:.3f}<extra>" + label + "</extra>",
            )
        )
        extremes += [float(counts.min()), float(counts.max())]
        said.append(f"median of {name} from {median[0]:.2f} (rarest) to {median[-1]:.2f} (most frequent)")
    drawing.update_xaxes(logarithmic(np.array(extremes)))
    name = f"{title.lower().replace(' ', '-')}-against-frequency"
    return figure(f"{title} against frequency", drawn(drawing, name), look, "; ".join(said))


def medians(counts: Array, values: Array) -> tuple[Array, Array]:
    """Computes medians of `values` in bins of `counts`, evenly wide on a logarithmic axis.

    Args:
        counts: `[rows]`.
        values: `[rows]`.

    Returns:
        The middle of each bin with enough ids, and the median in it.
    """
    logs = np.log(counts.astype(np.float64))
    width = max(float(np.ptp(logs)) / _BINS, 1e-9)
    bins = np.minimum(((logs - logs.min()) / width).astype(np.int64), _BINS - 1)
    sizes = np.bincount(bins)
    used = np.flatnonzero(sizes >= min(_LEAST_IDS, sizes.max()))
    x = np.array([np.exp(logs[bins == b].mean()) for b in used])
    return x, np.array([np.median(values[bins == b]) for b in used])


def _neighbours(name: str, embedding: Embedding, titles: Mapping[str, str]) -> Markup:
    if embedding.is_hashed:
        return paragraph(f"{name} is hashed: its embeddings belong to bins, which have no names.", "soft")
    if not embedding.tokens:
        return paragraph(f"{name} has an empty vocabulary.", "soft")
    # From the most frequent to rare items, whose neighbours are of different quality.
    of = log_spaced(len(embedding.tokens), _ITEMS)
    found = neighbours(embedding, of.tolist(), _NEIGHBOURS, _LEAST_COUNT)
    rows = [
        [
            _item(embedding.tokens[index], int(embedding.counts[index]), titles),
            Markup("<ol>{}</ol>").format(joined(_line(neighbour, titles) for neighbour in nearest)),
        ]
        for index, nearest in found.items()
    ]
    look = (
        "Sanity check: neighbours should be sequels or similar genres. Frequent items come first; the rarer an item, "
        f"the more its neighbours are chance. Items with fewer than {_LEAST_COUNT} train rows are not shown as "
        "neighbours."
    )
    if not titles:
        look += " To show titles instead of ids, give a CSV file with ids and titles: --titles FILE."
    header = ["item", "nearest items, with the cosine of the vectors"]
    return joined([paragraph(look, "soft"), table(f"Neighbours by {name}", header, rows, numbers=False)])


def _item(token: str, count: int, titles: Mapping[str, str]) -> Markup:
    rows = f"{count:,} row{'' if count == 1 else 's'}"
    return Markup('{} <span class="soft">{}</span>').format(titles.get(token, token), rows)


def _line(neighbour: Neighbour, titles: Mapping[str, str]) -> Markup:
    return Markup('<li>{} <span class="soft">{}</span></li>').format(
        titles.get(neighbour.token, neighbour.token), number(neighbour.cosine, 2)
    )
