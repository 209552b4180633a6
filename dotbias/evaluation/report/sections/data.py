"""Shows the data: where the rows went, the features, and how often ids occur."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import plotly.graph_objects as go
from markupsafe import Markup

from dotbias.evaluation.exported.embeddings import Embedding
from dotbias.evaluation.formats import MISSING, percent
from dotbias.evaluation.report.charts import chart, drawn, log_spaced, logarithmic, plain
from dotbias.evaluation.report.page import figure, joined, paragraph, side_by_side, table, tables_in_a_row
from dotbias.evaluation.report.style import COLOURS
from pipeline.manifest import DatasetManifest, Feature

_OOV = (
    "OOV (out of vocabulary) is the share of rows whose id is not in the vocabulary. These ids share one embedding for "
    "each OOV bucket, so the model does not tell them apart. A large share in eval, or one far above that of train, "
    "means that many ids are new: retrain more often, or lower the frequency threshold."
)


def data_section(manifest: DatasetManifest, embeddings: Mapping[str, Embedding]) -> Markup:
    """Makes the tables of rows and features, and the frequency curves."""
    tables = tables_in_a_row(*_rows(manifest), _features(manifest, embeddings))
    return joined([tables, paragraph(_label(manifest), "soft"), paragraph(_OOV, "soft"), _curves(embeddings)])


def _rows(manifest: DatasetManifest) -> list[Markup]:
    counts = manifest.counts
    fates = {
        "train": counts.train,
        "eval": counts.eval,
        "rejected": counts.rejected,
        "out of the window": counts.out_of_window,
        "duplicates": counts.duplicates,
    }
    rows = []
    for fate, number in fates.items():
        # Rows that only some configurations drop are shown where there are any.
        if number or fate in ("train", "eval", "rejected"):
            split = manifest.splits.get(fate)
            positive = percent(split.positive_rows / split.rows) if split and split.rows else MISSING
            rows.append([fate, f"{number:,}", percent(number / counts.read) if counts.read else MISSING, positive])
    rows.append(["read", f"{counts.read:,}", "100.0%" if counts.read else MISSING, MISSING])
    parts = [table("Rows of the log", ["", "rows", "share", "positive rows"], rows)]
    if counts.rejected:
        by_number = sorted(counts.rejected_by_reason.items(), key=lambda item: (-item[1], item[0]))
        kept = {reason: n - counts.rejected_not_kept.get(reason, 0) for reason, n in by_number}
        cells = [[reason, f"{n:,}", f"{kept[reason]:,}"] for reason, n in by_number]
        parts.append(table("Rejected rows", ["reason", "rows", "kept in rejected/"], cells))
    return parts


def _label(manifest: DatasetManifest) -> str:
    label = manifest.label
    if label.column is None:
        return "The log has no labels: each row is positive."
    made = f"The label is made from {label.column!r}"
    if label.scale is not None:
        low, high = label.scale
        made += f", scaled from [{low:g}, {high:g}]"
    if label.threshold is not None:
        made += f", against the threshold {label.threshold:g}"
    if label.scale is not None and label.threshold is not None:
        hard_weight = 1 - (label.soft_weight or 0)
        made += f" (blended: {label.soft_weight:g} times the scaled value plus {hard_weight:g} times 0 or 1)"
    return f"{made}. A row is positive where its label is at least {label.positive_at:.4g}."


def _features(manifest: DatasetManifest, embeddings: Mapping[str, Embedding]) -> Markup:
    rows = []
    for name, feature in manifest.features.items():
        known = embeddings.get(name)
        size = MISSING if known is None else f"{len(known.table):,}"
        oov = [_oov(manifest, feature, split) for split in ("train", "eval")]
        tokens = "hashed" if feature.vocabulary_size is None else f"{feature.vocabulary_size:,}"
        rows.append([name, feature.side, tokens, size, *oov])
    header = ["feature", "side", "tokens", "embeddings", "OOV in train", "OOV in eval"]
    return table("Features", header, rows)


def _oov(manifest: DatasetManifest, feature: Feature, split: str) -> str:
    rows = manifest.splits[split].rows if split in manifest.splits else 0
    return (
        percent((feature.oov_rows or {}).get(split, 0) / rows, 2) if rows and feature.oov_rows is not None else MISSING
    )


def _curves(embeddings: Mapping[str, Embedding]) -> Markup:
    ranks = chart("rank", "train rows")
    shares = chart("share of ids, most frequent first", "share of their train rows", yaxis_range=[0, 1.02])
    shares.update_xaxes(tickformat=".0%", range=[0, 1])
    shares.update_yaxes(tickformat=".0%")
    said = []
    longest, most = 1, 1.0
    for (name, embedding), colour in zip(embeddings.items(), COLOURS * len(embeddings), strict=False):
        counts = embedding.known_counts
        if not len(counts):
            continue
        label = plain(f"{name} (bins)" if embedding.is_hashed else name)
        line = {"color": colour, "width": 2}
        at = log_spaced(len(counts))
        hover = "rank %{x:,}: %{y:,} rows<extra></extra>"
        ranks.add_trace(go.Scatter(x=at + 1, y=counts[at], name=label, line=line, hovertemplate=hover))
        covered = np.cumsum(counts, dtype=np.float64) / counts.sum(dtype=np.float64)
        x, y = (at + 1) / len(counts), covered[at]
        hover = "%{x:.1%} of ids: %{y:.1%} of rows<extra></extra>"
        shares.add_trace(go.Scatter(x=np.append(0, x), y=np.append(0, y), name=label, line=line, hovertemplate=hover))
        said.append(f"{name}: {_concentration(counts)}")
        longest, most = max(longest, len(counts)), max(most, float(counts.max()))
    if not said:
        return paragraph("No id occurs often enough to have an embedding.", "soft")
    ranks.update_xaxes(logarithmic(np.array([1, longest])))
    ranks.update_yaxes(logarithmic(np.array([1, most])))
    for drawing in (ranks, shares):
        drawing.update_layout(showlegend=True)
    return side_by_side(
        figure(
            "How often ids occur",
            drawn(ranks, "frequencies"),
            "A straight line is a power law, which most logs follow. Ids at the right end have few rows to learn from.",
            "; ".join(said),
        ),
        figure(
            "How concentrated the rows are",
            drawn(shares, "concentration"),
            Markup("The steeper the start, the more rows belong to few ids. {}").format(". ".join(said) + "."),
            "; ".join(said),
        ),
    )


def _concentration(counts: npt.NDArray[np.float32]) -> str:
    top = max(len(counts) // 10, 1)
    return (
        f"the most frequent tenth has {percent(float(counts[:top].sum() / counts.sum()), 0)} of the rows, "
        f"half of the ids have {np.median(counts):,.0f} rows or fewer"
    )
