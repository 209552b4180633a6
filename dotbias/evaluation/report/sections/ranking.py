"""Shows how well the model finds items among all items."""

from __future__ import annotations

from collections.abc import Callable

import plotly.graph_objects as go
from markupsafe import Markup

from dotbias.evaluation.formats import number, percent, with_interval
from dotbias.evaluation.report.charts import chart, drawn, error_bars
from dotbias.evaluation.report.page import figure, joined, paragraph, side_by_side, table
from dotbias.evaluation.report.style import BLUE, GREY
from dotbias.evaluation.results import Estimate, Ranking, RankingAtK


def ranking_section(ranking: Ranking) -> Markup:
    """Makes recall and NDCG over all items, beside those of the most popular items."""
    sample = "" if ranking.users == ranking.eligible else f", a random sample of {ranking.eligible:,}"
    return joined(
        [
            paragraph(
                f"Measured for {ranking.users:,} users{sample}. For each user, all {ranking.items:,} items of the "
                "vocabulary are ranked, except those that the user has in train; no negatives are sampled. The "
                f"relevant items are those of {ranking.relevant:,} positive pairs of user and item. "
                f"{ranking.unrankable:,} more pairs are left out, since their item is unknown or in the user's train "
                "rows."
            ),
            side_by_side(
                _by_k(
                    ranking,
                    "Recall@k",
                    lambda at: at.recall,
                    "Share of a user's relevant items among the first k.",
                ),
                _by_k(ranking, "NDCG@k", lambda at: at.ndcg, "As recall, but early places count more."),
            ),
            paragraph(
                "The model predicts opinions on items that users meet, not which items they meet, so popularity is "
                "hard to beat here. A model that beats popularity can find candidates by itself. One that does not "
                "should order candidates that come from elsewhere."
            ),
            _table(ranking),
            paragraph(
                "Coverage is the share of all items that are among the first k of at least one user. Popularity goes "
                "from 0 for the item with the fewest train rows to 1 for that with the most; the relevant items have "
                f"{number(ranking.relevant_popularity, 2)} on average. A ranking far above that shows all users much "
                "the same items.",
                "soft",
            ),
        ]
    )


def _by_k(ranking: Ranking, title: str, measure: Callable[[RankingAtK], Estimate], meaning: str) -> Markup:
    drawing = chart("k", title, showlegend=True)
    said = []
    for ranker, colour in zip(ranking.rankers, (BLUE, GREY), strict=False):
        estimates = [measure(at) for at in ranker.at]
        drawing.add_trace(
            go.Scatter(
                x=[str(at.k) for at in ranker.at],
                y=[estimate.value for estimate in estimates],
                error_y=error_bars(estimates),
                name=ranker.name,
                mode="lines+markers",
                line={"color": colour, "width": 2},
                marker={"size": 8},
                hovertemplate="k %{x}: %{y:.4f}<extra>" + ranker.name + "</extra>",
            )
        )
        said.append(f"{ranker.name} {number(estimates[0].value)} at k {ranker.at[0].k}" if estimates else ranker.name)
    drawing.update_xaxes(type="category")
    drawing.update_yaxes(rangemode="tozero")
    look = f"{meaning} The model should be above popularity. Bars are 95% intervals."
    return figure(title, drawn(drawing, title.partition("@")[0].lower()), look, "; ".join(said))


def _table(ranking: Ranking) -> Markup:
    rows = [
        [
            f"{ranker.name}, k = {at.k}",
            with_interval(at.recall),
            with_interval(at.ndcg),
            percent(at.coverage),
            number(at.popularity, 2),
        ]
        for ranker in ranking.rankers
        for at in ranker.at
    ]
    rows += [[f"{ranker.name}, MRR", with_interval(ranker.mrr), "", "", ""] for ranker in ranking.rankers]
    header = ["", "recall@k", "NDCG@k", "coverage", "popularity"]
    return table("Ranking of all unseen items", header, rows)
