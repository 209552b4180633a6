"""Puts the numbers of a comparison into tables of text, for the console, the page and a spreadsheet."""

from __future__ import annotations

from typing import NamedTuple

from dotbias.evaluation.encodings.comparison import Comparison, FeatureEncoding
from dotbias.evaluation.results import Estimate

# ASCII, since the tables also go to spreadsheets.
MISSING = "-"


class Table(NamedTuple):
    """Holds a table; `header` and each row have the same number of columns, and the first names the row."""

    caption: str
    header: list[str]
    rows: list[list[str]]


def quality_table(comparison: Comparison) -> Table:
    """Makes the table of AUC and log loss, with gains over the first variant and their intervals."""
    rows = []
    for variant in comparison.variants:
        scores = comparison.scores[variant.name]
        rows.append(
            [
                variant.title,
                number(scores.auc.value),
                gain(scores.auc_gain),
                number(scores.log_loss.value),
                gain(scores.log_loss_gain),
                f"{variant.best_epoch:.3g} of {variant.epochs:.3g}",
            ]
        )
    rows[0][2] = rows[0][4] = MISSING
    caption = f"Quality on {comparison.rows['eval']:,} eval rows; gains over the first line with 95 % intervals"
    return Table(caption, ["variant", "AUC", "AUC gain", "log loss", "log loss gain", "best epoch"], rows)


def cost_table(comparison: Comparison) -> Table:
    """Makes the table of collisions, sizes and times; features are separated by a slash."""
    features = list(comparison.variants[0].features)
    rows = []
    for variant in comparison.variants:
        if variant.kind == "reseeded":
            continue
        encodings = [variant.features[name] for name in features]
        rows.append(
            [
                variant.title,
                " / ".join(f"{encoding.colliding_ids:.1%}" for encoding in encodings),
                " / ".join(_expected(encoding) for encoding in encodings),
                " / ".join(f"{encoding.colliding_rows:.1%}" for encoding in encodings),
                " / ".join(_oov(encoding) for encoding in encodings),
                mebibytes(variant.table_bytes),
                mebibytes(variant.slot_bytes),
                mebibytes(variant.served_bytes),
                f"{variant.preprocess_seconds:.1f}",
                f"{variant.train_seconds:.1f}",
            ]
        )
    header = ["variant", "ids that collide", "in theory", "rows that collide", "OOV in eval"]
    header += ["tables, MiB", "slots", "export", "preprocessing, s", "training"]
    return Table(f"Collisions and costs; shares by feature: {' / '.join(features)}", header, rows)


def slice_table(comparison: Comparison, kind: str) -> Table:
    """Makes the table of the AUC of each variant on rows grouped by the train rows of their id."""
    slices = [slice_ for slice_ in comparison.slices if slice_.kind == kind]
    rows = [
        [variant.title, *(number(slice_.scores[variant.name].auc.value) for slice_ in slices)]
        for variant in comparison.variants
    ]
    rows.append(["rows", *(f"{slice_.rows:,}" for slice_ in slices)])
    return Table(f"AUC by the train rows of {kind}", ["variant", *(slice_.value for slice_ in slices)], rows)


def all_tables(comparison: Comparison) -> list[Table]:
    kinds = list(dict.fromkeys(slice_.kind for slice_ in comparison.slices))
    by_slice = [slice_table(comparison, kind) for kind in kinds]
    return [quality_table(comparison), cost_table(comparison), *by_slice]


def markdown(table: Table) -> str:
    """Formats a table as Markdown with aligned columns; the text ends with a line end."""
    lines = [table.header, *table.rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(table.header))]
    aligned = [
        [line[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True))] for line in lines
    ]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    text = [f"| {' | '.join(line)} |" for line in (aligned[0], rule, *aligned[1:])]
    return f"{table.caption}\n\n" + "\n".join(text) + "\n"


def number(value: float | None) -> str:
    return MISSING if value is None else f"{value:.4f}"


def gain(estimate: Estimate) -> str:
    """Formats a gain with its sign and interval."""
    if estimate.value is None:
        return MISSING
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:+.4f}"
    return f"{estimate.value:+.4f} ({estimate.low:+.4f} to {estimate.high:+.4f})"


def mebibytes(size: int) -> str:
    return f"{size / 2**20:,.1f}"


def _expected(encoding: FeatureEncoding) -> str:
    return MISSING if encoding.expected_colliding_ids is None else f"{encoding.expected_colliding_ids:.1%}"


def _oov(encoding: FeatureEncoding) -> str:
    return MISSING if encoding.oov_rows is None else f"{encoding.oov_rows.get('eval', 0):.1%}"
