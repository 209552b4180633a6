"""Writes the results of a comparison: the numbers, and a page with the recommendation, plots and tables."""

from __future__ import annotations

import csv
import io
from collections import Counter
from pathlib import Path

import numpy as np
from markupsafe import Markup
from pydantic import ValidationError

from dotbias.evaluation.encodings.comparison import Comparison, MeasuredVariant
from dotbias.evaluation.encodings.recommendation import Recommendation
from dotbias.evaluation.encodings.tables import Table, all_tables
from dotbias.evaluation.report.charts import chart, drawn, error_bars, plain
from dotbias.evaluation.report.page import (
    Section,
    bullets,
    code,
    figure,
    joined,
    page,
    paragraph,
    side_by_side,
    table,
)
from dotbias.evaluation.report.style import BLUE, GREY, ORANGE
from pipeline.manifest import join
from trainer.data.files import write_text

COMPARISON_NAME = "comparison.json"
TABLE_NAME = "comparison.csv"
PAGE_NAME = "report.html"
_FAMILIES = {"as configured": GREY, "vocabulary": BLUE, "hashing": ORANGE}
_DASHES = ("solid", "dash", "dot", "dashdot")
_METRICS = {"auc_gain": "AUC", "log_loss_gain": "log loss"}


def write_comparison(
    directory: str, comparison: Comparison, recommendation: Recommendation, configuration: str
) -> None:
    """Writes `comparison.json`, `comparison.csv` and `report.html`, which needs no network and no other file.

    `configuration` is the path of the configuration file with the recommended encoding.
    """
    write_text(join(directory, COMPARISON_NAME), comparison.model_dump_json(indent=2) + "\n")
    write_text(join(directory, TABLE_NAME), _csv(all_tables(comparison)))
    write_text(join(directory, PAGE_NAME), comparison_page(comparison, recommendation, configuration))


def read_comparison(directory: str) -> Comparison | None:
    """Reads what an earlier start wrote; None if there is nothing that this version can read."""
    path = Path(directory, COMPARISON_NAME)
    try:
        return Comparison.model_validate_json(path.read_text()) if path.exists() else None
    except ValidationError:
        return None


def _csv(tables: list[Table]) -> str:
    """Writes the tables below each other as CSV."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for shown in tables:
        writer.writerows([[shown.caption], shown.header, *shown.rows, []])
    return text.getvalue()


def comparison_page(comparison: Comparison, recommendation: Recommendation, configuration: str) -> str:
    """Renders the page as HTML."""
    tables = [table(shown.caption, shown.header, shown.rows) for shown in all_tables(comparison)]
    chosen = next(variant for variant in comparison.variants if variant.name == recommendation.name)
    verdict = Markup('<div class="verdict go">{}{}{}</div>').format(
        Markup("<h2>Use {}</h2>").format(chosen.title),
        bullets(recommendation.reasons),
        paragraph(Markup("To train with this encoding: {}").format(code(f"--config {configuration}"))),
    )
    quality = [_gain_by_size(comparison, metric) for metric in _METRICS]
    kinds = list(dict.fromkeys(slice_.kind for slice_ in comparison.slices))
    slices = [_gain_by_frequency(comparison, kind) for kind in kinds]
    sections = [
        Section("quality", "Quality and size", joined([side_by_side(*quality), tables[0]])),
        Section("rare", "Rare ids", joined([side_by_side(*slices), *tables[2:]])),
        Section("costs", "Collisions and costs", joined([side_by_side(_collisions(comparison)), tables[1]])),
        Section("how", "How it was measured", bullets(_method(comparison))),
    ]
    return page("Hashing or vocabulary?", verdict, sections, "Written by --stage compare_encodings.")


def _family(variant: MeasuredVariant) -> str:
    if variant.kind in ("configured", "reseeded"):
        return "as configured"
    return variant.kind


def _gain_by_size(comparison: Comparison, metric: str) -> Markup:
    shown = chart("size of the export, MiB", f"gain in {_METRICS[metric]}")
    for family, colour in _FAMILIES.items():
        variants = [variant for variant in comparison.variants if _family(variant) == family]
        estimates = [getattr(comparison.scores[variant.name], metric) for variant in variants]
        shown.add_scatter(
            x=[variant.served_bytes / 2**20 for variant in variants],
            y=[estimate.value for estimate in estimates],
            error_y=error_bars(estimates),
            mode="lines+markers" if family == "hashing" else "markers",
            marker={"color": colour, "size": 9, "symbol": "diamond" if family == "as configured" else "circle"},
            line={"width": 1},
            name=family,
            text=[plain(variant.title) for variant in variants],
            hovertemplate="%{text}<br>%{x:.1f} MiB, %{y:+.4f}<extra></extra>",
        )
    shown.update_xaxes(type="log")
    return figure(
        f"Gain in {_METRICS[metric]} over the configured encoding",
        drawn(shown, f"gain-{metric.replace('_', '-')}"),
        "Higher is better, further left is smaller. The second diamond is the same configuration with another seed. "
        "A gain that is no farther from 0 than this diamond means nothing.",
        "a point for each variant by the size of its export; the table below has the numbers",
    )


def _gain_by_frequency(comparison: Comparison, kind: str) -> Markup:
    slices = [slice_ for slice_ in comparison.slices if slice_.kind == kind]
    shown = chart(f"train rows of the {kind}", "gain in log loss")
    of_family: Counter[str] = Counter()
    for variant in comparison.variants[1:]:
        dash = _DASHES[of_family[_family(variant)] % len(_DASHES)]
        of_family[_family(variant)] += 1
        estimates = [slice_.scores[variant.name].log_loss_gain for slice_ in slices]
        shown.add_scatter(
            x=[slice_.value for slice_ in slices],
            y=[estimate.value for estimate in estimates],
            error_y=error_bars(estimates),
            mode="lines+markers",
            marker={"color": _FAMILIES[_family(variant)]},
            line={"color": _FAMILIES[_family(variant)], "width": 1.5, "dash": dash},
            name=plain(variant.title),
        )
    shown.update_xaxes(type="category")
    return figure(
        f"Gain in log loss by train rows of the {kind}",
        drawn(shown, f"frequency-{kind}", height=460),
        "Below 0, the variant is worse on these rows than the configured encoding. Rare ids usually lose first.",
        "a line for each variant over groups of ids from cold to frequent",
    )


def _collisions(comparison: Comparison) -> Markup:
    """Plots measured shares of collisions against the theoretical ones."""
    shown = chart("share of ids that collide, in theory", "measured", xaxis_tickformat=".0%", yaxis_tickformat=".0%")
    shown.add_scatter(x=[0, 1], y=[0, 1], mode="lines", line={"color": GREY, "width": 1}, name="theory")
    for attribute, name, symbol in (("colliding_ids", "ids", "circle"), ("colliding_rows", "train rows", "x")):
        points = [
            (encoding.expected_colliding_ids, getattr(encoding, attribute), f"{variant.title}: {feature}")
            for variant in comparison.variants
            for feature, encoding in variant.features.items()
            if encoding.expected_colliding_ids is not None
        ]
        expected, measured, titles = zip(*points, strict=True) if points else ((), (), ())
        shown.add_scatter(
            x=np.array(expected),
            y=np.array(measured),
            mode="markers",
            marker={"symbol": symbol, "size": 9, "color": ORANGE if name == "ids" else BLUE},
            name=name,
            text=[plain(title) for title in titles],
            hovertemplate="%{text}<br>%{y:.1%}, in theory %{x:.1%}<extra></extra>",
        )
    return figure(
        "Ids that share their embedding with another id",
        drawn(shown, "collisions"),
        "The theoretical share is 1 \N{MINUS SIGN} exp(\N{MINUS SIGN}load), where load is ids per bin. Shares of rows "
        "are close to those of ids, except where a few very frequent ids collide or do not.",
        "measured shares of ids and of rows against theory; the table below has the numbers",
    )


def _method(comparison: Comparison) -> list[str]:
    return [
        f"All variants were trained on the same {comparison.rows['train']:,} rows. Their exports were measured on the "
        f"same {comparison.rows['eval']:,} eval rows, on which none was trained. Early stopping and calibration used "
        "these eval rows, so all numbers are slightly too good, equally for all variants.",
        f"Intervals come from {comparison.resamples:,} resamples of {comparison.users:,} users, the same for all "
        "variants. They do not include chance in the initial values; the variant with another seed shows that.",
        "An id collides if another id has the same embedding: the same bin or out-of-vocabulary bucket.",
        "The export is what is served: tables and vocabularies. Slots are in memory only during training. Hashed ids "
        "were preprocessed once for all numbers of bins.",
    ]
