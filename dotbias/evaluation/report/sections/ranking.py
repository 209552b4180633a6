"""What the report says of finding items among all."""

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
    """Recall and NDCG over all items, beside popularity."""
    sample = "" if ranking.users == ranking.eligible else f", a random sample of {ranking.eligible:,},"
    return joined(
        [
            paragraph(
                f"Each of {ranking.users:,} users{sample} is shown all {ranking.items:,} items of the vocabulary, "
                f"without those seen in train; none are sampled. {ranking.relevant:,} positive rows are to be found; "
                f"{ranking.unrankable:,} more cannot be, since their item is unknown or was seen in train."
            ),
            side_by_side(
                _by_k(
                    ranking,
                    "Recall@k",
                    lambda at: at.recall,
                    "The share of what a user likes that is among the first k.",
                ),
                _by_k(
                    ranking, "NDCG@k", lambda at: at.ndcg, "As recall, but an early place counts more than a late one."
                ),
            ),
            paragraph(
                "The model learns what users will think of items that they come by, not what they come by, so "
                "popularity is hard to beat here. A model that wins finds candidates by itself; one that loses should "
                "put the candidates of another in order."
            ),
            _table(ranking),
            paragraph(
                "Items shown: the share of all items that anybody is shown in the first k. Popularity goes from 0 for "
                f"the rarest item to 1 for the most frequent; of the items to be found it is "
                f"{number(ranking.relevant_popularity, 2)}. Far above that, the model shows everybody the same.",
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
    look = f"{meaning} The model should lie above popularity; bars are 95% intervals."
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
    header = ["", "recall@k", "NDCG@k", "items shown", "their popularity"]
    return table("Ranking all unseen items", header, rows)
