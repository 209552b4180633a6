"""Ranges: parts of the input that can be read independently of each other, and the rows they hold. Without Beam."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pyarrow as pa

from pipeline.config import PipelineConfig, timestamp_of
from pipeline.input.csv_files import split_csv_file
from pipeline.input.interactions import LABEL, Interactions
from pipeline.input.labels import make_labels
from pipeline.input.matching import check_unchanged
from pipeline.input.parquet_files import split_parquet_file
from pipeline.input.parsing import Block, Parsed, Rejected
from pipeline.manifest import InputFile

if TYPE_CHECKING:
    from pipeline.input.bigquery import TableStream


class FileRange(Protocol):
    """A part of the input that can be read on its own."""

    @property
    def file(self) -> int: ...

    def blocks(self, config: PipelineConfig) -> Iterator[Callable[[], Block | None]]:
        """Calls that make rows of a piece, None if nothing begins in it; they may run in threads."""


def split_input(numbered: tuple[int, InputFile | TableStream], config: PipelineConfig) -> Iterator[FileRange]:
    """Cuts the input's file of that number into ranges; what is a file_range already stays one.

    Raises:
        InputError: the file is not what it was, or it cannot be read.
    """
    number, source = numbered
    if not isinstance(source, InputFile):
        yield source
        return
    check_unchanged([source])
    yield from (split_csv_file if config.input.format == "csv" else split_parquet_file)(number, source, config)


def make_interactions(file: int, parse: Callable[[], Block | None], config: PipelineConfig) -> Interactions | None:
    """What becomes of a piece of a file_range: rows of the window with labels, and those that are rejected."""
    block = parse()
    if block is None:
        return None
    offset, parsed = block
    windowed, out_of_window = take_window(parsed, config)
    labelled = label_rows(windowed, config)
    return Interactions(file, offset, labelled.rows, labelled.rejected, out_of_window)


def take_window(parsed: Parsed, config: PipelineConfig) -> tuple[Parsed, int]:
    """The rows whose timestamp lies in the window, and how many do not."""
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
    """Puts `label` in the place of the label's column; rows whose label is not in [0, 1] are rejected."""
    rows = parsed.rows
    index = rows.schema.get_field_index(config.label.column)
    labels = make_labels(rows.column(index).to_numpy(), config.label)
    parsed = parsed._replace(rows=rows.set_column(index, LABEL, pa.array(labels, pa.float32())))
    good = (labels >= 0) & (labels <= 1)
    if good.all():
        return parsed
    places = parsed.places()
    reason = f"{config.label.column}: the label it makes is not in [0, 1]"
    rejected = [Rejected(places[row][0], reason, places[row][1]) for row in np.flatnonzero(~good)]
    return _keep(parsed, good, rejected)


def _keep(parsed: Parsed, mask: np.ndarray[Any, np.dtype[np.bool_]], rejected: list[Rejected]) -> Parsed:
    """The rows where `mask` is true; `rejected` become part of the rejected ones."""

    def places() -> list[tuple[int, bytes]]:
        return [place for place, kept in zip(parsed.places(), mask, strict=True) if kept]

    return Parsed(parsed.rows.filter(pa.array(mask)), sorted([*parsed.rejected, *rejected]), places)
