"""Cuts the input into ranges that are read independently, and makes `Interactions` of their rows. No Beam here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from pipeline.config import PipelineConfig, WindowConfig, timestamp_of
from pipeline.input.csv_files import split_csv_file
from pipeline.input.interactions import LABEL, Interactions, by_reason
from pipeline.input.labels import make_labels
from pipeline.input.parquet_files import split_parquet_file
from pipeline.input.parsing import Block, Parsed, Rejected
from pipeline.manifest import InputFile
from pipeline.storage.matching import check_unchanged

LABEL_OUT_OF_RANGE = "the label it makes is not in [0, 1]"


class FileRange(Protocol):
    """Names rows of a file, or a stream of a table, that can be read without the rest."""

    @property
    def file(self) -> int: ...

    def blocks(self, config: PipelineConfig) -> Iterator[Callable[[], Block | None]]:
        """Yields calls that parse one block each (None if no row begins in it); they may run in threads."""


def split_input(numbered: tuple[int, InputFile | FileRange], config: PipelineConfig) -> Iterator[FileRange]:
    """Cuts a numbered file into ranges. A range, such as a stream of a table, stays whole.

    Raises:
        InputError: the file has changed since it was listed, or it cannot be read.
    """
    number, source = numbered
    if not isinstance(source, InputFile):
        yield source
        return
    # The last step refuses a file that has grown, unless all of its rows turn out to lie outside of the window.
    check_unchanged([source], may_grow=config.window != WindowConfig())
    yield from (split_csv_file if config.input.format == "csv" else split_parquet_file)(number, source, config)


def make_interactions(file: int, parse: Callable[[], Block | None], config: PipelineConfig) -> Interactions | None:
    """Parses a block, takes the rows of the window, and makes their labels; None if no row begins in the block."""
    block = parse()
    if block is None:
        return None
    offset, parsed = block
    windowed, out_of_window = take_window(parsed, config)
    labelled = label_rows(windowed, config)
    return Interactions(file, offset, labelled.rows, by_reason(file, offset, labelled.rejected), out_of_window)


def take_window(parsed: Parsed, config: PipelineConfig) -> tuple[Parsed, int]:
    """Returns the rows whose timestamp is in the window, and the number of the others."""
    window, unit = config.window, config.timestamp_unit
    if window.since is None and window.until is None:
        return parsed, 0
    timestamps = parsed.rows.column(config.timestamp_column).to_numpy()
    inside = np.ones(len(timestamps), bool)
    if window.since is not None:
        inside &= timestamps >= timestamp_of(window.since, unit)
    if window.until is not None:
        inside &= timestamps < timestamp_of(window.until, unit)
    return _keep(parsed, inside, []), int((~inside).sum())


def label_rows(parsed: Parsed, config: PipelineConfig) -> Parsed:
    """Replaces the label's column by the label; a row whose label is not in [0, 1] is rejected.

    In a log without labels, each row has label 1.
    """
    rows = parsed.rows
    if config.label.column is None:
        ones = pa.array(np.ones(len(rows), np.float32))
        return parsed._replace(
            rows=pa.RecordBatch.from_arrays([*rows.columns, ones], names=[*rows.schema.names, LABEL])
        )
    index = rows.schema.get_field_index(config.label.column)
    labels = make_labels(rows.column(index).to_numpy(), config.label)
    parsed = parsed._replace(rows=rows.set_column(index, LABEL, pa.array(labels, pa.float32())))
    good = (labels >= 0) & (labels <= 1)
    if good.all():
        return parsed
    places = parsed.places()
    reason = f"{config.label.column}: {LABEL_OUT_OF_RANGE}"
    rejected = [Rejected(places[row][0], reason, places[row][1]) for row in np.flatnonzero(~good)]
    return _keep(parsed, good, rejected)


def _keep(parsed: Parsed, mask: np.ndarray[Any, np.dtype[np.bool_]], rejected: list[Rejected]) -> Parsed:
    """Keeps the rows where `mask` is true, and adds `rejected` to the rejected rows."""

    def places() -> list[tuple[int, bytes]]:
        return [place for place, kept in zip(parsed.places(), mask, strict=True) if kept]

    return Parsed(parsed.rows.filter(pa.array(mask)), sorted([*parsed.rejected, *rejected]), places)
