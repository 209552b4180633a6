"""Measures how far the frequencies of a feature have shifted from one dataset to another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from dotbias.retraining.gate import DataFigures
from pipeline.config import SplitConfig, day_length, timestamp_of
from pipeline.manifest import DatasetManifest, Feature, join
from pipeline.storage.files import read_file

# Groups of tokens that hold about as many of the champion's train rows each. Ten is the usual number.
GROUPS = 10
# A group that is empty on one side only would make the index infinite.
_LEAST_SHARE = 1e-4


def data_figures(manifest: DatasetManifest) -> DataFigures:
    """Reads the figures that the gate compares from a manifest."""
    train, counts = manifest.splits["train"], manifest.counts
    in_window = counts.read - counts.out_of_window
    return DataFigures(
        train_rows=train.rows,
        train_days=_days(manifest),
        rejected=counts.rejected / max(in_window, 1),
        label_mean=train.label_mean,
        oov={
            name: _oov(feature) / max(train.rows if counts.vocabulary is None else counts.vocabulary, 1)
            for name, feature in manifest.features.items()
            if feature.oov_rows is not None
        },
    )


def _days(manifest: DatasetManifest) -> int | None:
    """Returns the number of days (UTC) from that of the first train row until the eval rows begin.

    So a log that is shorter than the window has fewer days, and one that lacks its newest files does not.
    """
    first, config = manifest.splits["train"].first_timestamp, manifest.config
    cut = SplitConfig.model_validate(config.get("split", {})).since
    if first is None or cut is None:
        return None
    unit = config["timestamp_unit"]
    return -(-timestamp_of(cut, unit) // day_length(unit)) - first // day_length(unit)


def psi_by_feature(
    champion: str, champion_manifest: DatasetManifest, challenger: str, challenger_manifest: DatasetManifest
) -> dict[str, float]:
    """Computes the population stability index of each feature that has a vocabulary in both datasets.

    Args:
        champion: the directory of its dataset, which has its vocabularies.
        champion_manifest: of that dataset.
        challenger: likewise.
        challenger_manifest: likewise.
    """
    result = {}
    for name, old in champion_manifest.features.items():
        new = challenger_manifest.features.get(name)
        if old.vocabulary_path is None or new is None or new.vocabulary_path is None:
            continue
        if old.token_dtype != new.token_dtype:
            continue
        result[name] = psi_of_vocabularies(
            _counts(champion, old),
            _counts(challenger, new),
            _oov(old),
            _oov(new),
        )
    return result


def psi_of_vocabularies(
    old: tuple[pa.Array, npt.NDArray[np.int64]],
    new: tuple[pa.Array, npt.NDArray[np.int64]],
    old_oov: int,
    new_oov: int,
) -> float:
    """Computes the index over `GROUPS` groups of old tokens, and one group of all other rows.

    Args:
        old: tokens, the most frequent first, and their train rows, `[tokens]`.
        new: likewise.
        old_oov: train rows of other tokens.
        new_oov: likewise.
    """
    tokens, counts = old
    total = int(counts.sum())
    if not total or not int(new[1].sum()):
        return 0.0
    # The group of a token is the tenth of the rows in which its first row lies.
    groups = (np.cumsum(counts) - counts) * GROUPS // total
    before = np.append(np.bincount(groups, counts, GROUPS), old_oov)
    places = pc.index_in(new[0], value_set=tokens).fill_null(-1).to_numpy(zero_copy_only=False)
    known = places >= 0
    after = np.bincount(groups[places[known]], new[1][known], GROUPS)
    after = np.append(after, new[1][~known].sum() + new_oov)
    return psi(before, after)


def psi(before: npt.NDArray[Any], after: npt.NDArray[Any]) -> float:
    """Computes the population stability index of two histograms over the same groups, `[groups]`.

    It is the sum of (q - p) ln(q / p) over shares p and q (N. Siddiqi, "Credit Risk Scorecards", 2006), where below .1
    is taken for no shift and above .25 for a large one.

    >>> psi(np.array([1, 1]), np.array([2, 2]))
    0.0
    >>> round(psi(np.array([50, 50]), np.array([40, 60])), 4)
    0.0405
    """
    p, q = (np.maximum(counts / counts.sum(), _LEAST_SHARE) for counts in (before, after))
    return float(((q - p) * np.log(q / p)).sum())


def _oov(feature: Feature) -> int:
    """Returns the rows with another token, of those that the vocabulary counts."""
    if feature.vocabulary_oov_rows is not None:
        return feature.vocabulary_oov_rows
    return 0 if feature.oov_rows is None else feature.oov_rows["train"]


def _counts(dataset: str, feature: Feature) -> tuple[pa.Array, npt.NDArray[np.int64]]:
    assert feature.vocabulary_path is not None and feature.counts_path is not None
    tokens = _lines(join(dataset, feature.vocabulary_path), pa.string())
    counts = _lines(join(dataset, feature.counts_path), pa.int64())
    return tokens, counts.to_numpy(zero_copy_only=False)


def _lines(path: str, kind: pa.DataType) -> pa.Array:
    """Reads a file of one value a line."""
    data = read_file(path)
    if not data:
        return pa.array([], kind)
    options: Mapping[str, object] = {"column_names": ["value"], "block_size": max(len(data), 1)}
    table = pyarrow.csv.read_csv(
        pa.BufferReader(data),
        read_options=pyarrow.csv.ReadOptions(**options),
        # A token may hold a comma or a quote; a byte that no text has cannot divide one.
        parse_options=pyarrow.csv.ParseOptions(delimiter="\x01", quote_char=False),
        convert_options=pyarrow.csv.ConvertOptions(column_types={"value": kind}, strings_can_be_null=False),
    )
    return table["value"].combine_chunks()
