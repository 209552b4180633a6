"""Shows how well the model finds items among all items."""

from __future__ import annotations

from collections.abc import Callable

import plotly.graph_objects as go
from markupsafe import Markup

from dotbias.evaluation.formats import interval, number, percent, signed, with_interval
from dotbias.evaluation.report.charts import chart, drawn, error_bars
from dotbias.evaluation.report.page import figure, joined, paragraph, side_by_side, table
from dotbias.evaluation.report.style import BLUE, GREEN, GREY, ORANGE
from dotbias.evaluation.results import Estimate, Ranker, RankerName, Ranking, RankingAtK

_TITLES: dict[RankerName, str] = {
    "model": "model",
    "popularity": "popularity",
    "other export": "other export",
    "fold-in": "users by their items alone",
}
_COLOURS = (BLUE, GREY, ORANGE, GREEN)
_OPINIONS = (
    "The model predicts opinions on items that users meet, not which items they meet, so popularity is hard to beat "
    "here. A model that beats popularity can find candidates by itself. One that does not should order candidates that "
    "come from elsewhere."
)
_LISTS = "The model was trained to find these items. Popularity is the same list for all users."
_FOLD_IN = (
    "Users by their items alone are the same users as if they were newer than the model: it is given their train "
    "items, and not their own vectors (signature recommend_for_items). The gain is what training on their rows adds."
)


def ranking_section(ranking: Ranking, *, makes_lists: bool = False) -> Markup:
    """Makes recall and NDCG over all items beside those of other rankings, and the lists of parts of the users.

    Args:
        ranking: the measurements.
        makes_lists: whether the model was trained for lists.
    """
    sample = "" if ranking.users == ranking.eligible else f", a random sample of {ranking.eligible:,}"
    folds_in = any(ranker.name == "fold-in" for ranker in ranking.rankers)
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
            paragraph(_LISTS if makes_lists else _OPINIONS),
            *([paragraph(_FOLD_IN)] if folds_in else []),
            _table(ranking),
            _items(ranking),
            paragraph(_meaning(ranking), "soft"),
            *([_slices(ranking)] if ranking.slices else []),
        ]
    )


def _meaning(ranking: Ranking) -> str:
    return (
        "The hit rate is the share of users with a relevant item among the first k. MRR is the mean of 1 / rank of a "
        "user's first relevant item. Coverage is the share of all items that are among the first k of at least one "
        "user. Popularity goes from 0 for the item with the fewest train rows to 1 for that with the most; the "
        f"relevant items have {number(ranking.relevant_popularity, 2)} on average. Popular items are the tenth with "
        f"the most train rows; {percent(ranking.relevant_popular_share)} of the relevant items are among them. Lists "
        "far above that show all users much the same items. Novelty is -log2 of an item's share of the train rows, in "
        "bits."
    )


def _by_k(ranking: Ranking, title: str, measure: Callable[[RankingAtK], Estimate], meaning: str) -> Markup:
    drawing = chart("k", title, showlegend=True)
    said = []
    for ranker, colour in zip(ranking.rankers, _COLOURS, strict=False):
        estimates = [measure(at) for at in ranker.at]
        drawing.add_trace(
            go.Scatter(
                x=[str(at.k) for at in ranker.at],
                y=[estimate.value for estimate in estimates],
                error_y=error_bars(estimates),
                name=_TITLES[ranker.name],
                mode="lines+markers",
                line={"color": colour, "width": 2},
                marker={"size": 8},
                hovertemplate="k %{x}: %{y:.4f}<extra>" + _TITLES[ranker.name] + "</extra>",
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
            f"{_TITLES[ranker.name]}, k = {at.k}",
            with_interval(at.recall),
            with_interval(at.ndcg),
            with_interval(at.hit_rate),
            with_interval(at.mrr),
            _gain(ranker, place),
        ]
        for ranker in ranking.rankers
        for place, at in enumerate(ranker.at)
    ]
    rows += [
        [f"{_TITLES[ranker.name]}, all ranks", "", "", "", with_interval(ranker.mrr), ""] for ranker in ranking.rankers
    ]
    header = ["", "recall@k", "NDCG@k", "hit rate@k", "MRR@k", "model's gain in NDCG, same users"]
    return table("Ranking of all unseen items", header, rows)


def _gain(ranker: Ranker, place: int) -> str:
    if not ranker.gains:
        return ""
    gain = ranker.gains[place].ndcg
    return f"{signed(gain.value)} ({interval(gain)})" if interval(gain) else signed(gain.value)


def _items(ranking: Ranking) -> Markup:
    rows = [
        [
            f"{_TITLES[ranker.name]}, k = {at.k}",
            percent(at.coverage),
            number(at.popularity, 2),
            percent(at.popular_share),
            number(at.novelty, 2),
        ]
        for ranker in ranking.rankers
        for at in ranker.at
    ]
    return table("Which items are listed", ["", "coverage", "popularity", "popular items", "novelty, bits"], rows)


def _slices(ranking: Ranking) -> Markup:
    rows = [
        [
            f"{part.kind}: {part.value}",
            f"{part.users:,}",
            f"{part.relevant:,}",
            with_interval(part.recall),
            number(part.popularity_recall.value),
            with_interval(part.ndcg),
            number(part.popularity_ndcg.value),
        ]
        for part in ranking.slices
    ]
    k = ranking.slices[0].k
    header = ["", "users", "relevant", f"recall@{k}", "of popularity", f"NDCG@{k}", "of popularity"]
    return table("Lists by user and by relevant item", header, rows)
