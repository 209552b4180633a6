"""`ReadInteractions`: the raw log -> Arrow record batches and rejected rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import apache_beam as beam
import numpy as np
import pyarrow as pa
from apache_beam.metrics import Metrics
from apache_beam.transforms.window import GlobalWindows

from pipeline import progress
from pipeline.ahead import Ahead
from pipeline.config import PipelineConfig, timestamp_of
from pipeline.csv_files import split_csv_file
from pipeline.input_files import check_unchanged, match_input
from pipeline.interactions import LABEL, Interactions
from pipeline.labels import make_labels
from pipeline.manifest import InputFile
from pipeline.parquet_files import split_parquet_file
from pipeline.parsing import Parsed, Piece, Rejected

if TYPE_CHECKING:
    from pipeline.bigquery import TableStream

# Stretches that a bundle parses while it hands on those before.
PARSERS = 2


class Stretch(Protocol):
    """A part of the input that can be read on its own."""

    @property
    def file(self) -> int: ...

    def pieces(self, config: PipelineConfig) -> Iterator[Callable[[], Piece | None]]:
        """Calls that make rows of a piece, None if nothing begins in it; they may run in threads."""


@dataclass(frozen=True)
class Source:
    """The input: `files` as the manifest describes them, and the `parts` that are read, by their numbers."""

    files: list[InputFile]
    parts: Sequence[InputFile | TableStream]

    @property
    def bytes(self) -> int:
        return sum(file.bytes for file in self.files)

    @property
    def names(self) -> list[str]:
        """What a message calls the parts."""
        return [part.path if isinstance(part, InputFile) else part.name for part in self.parts]


def describe_input(config: PipelineConfig, project: str | None) -> list[InputFile]:
    """What the configuration names as input, without reading it.

    Raises:
        InputError: it is not there.
    """
    if config.input.format == "bigquery":
        # Its clients take a second to import.
        from pipeline.bigquery import describe_table

        return [describe_table(config.input, project)]
    return match_input(config.input.patterns)


def open_source(config: PipelineConfig, files: list[InputFile], project: str | None) -> Source:
    """The input, ready to be read by any worker."""
    if config.input.format == "bigquery":
        from pipeline.bigquery import open_session

        return Source(files, open_session(config, project))
    return Source(files, files)


class ReadInteractions(beam.PTransform):
    """Reads the input in stretches that workers share, and yields a batch of `Interactions` for each piece of them."""

    def __init__(self, source: Source, config: PipelineConfig) -> None:
        super().__init__()
        self._source = source
        self._config = config

    def expand(self, pipeline: beam.Pipeline) -> beam.PCollection:
        return (
            pipeline
            | "Input" >> beam.Create(list(enumerate(self._source.parts)))
            | "Split" >> beam.FlatMap(split_input, self._config)
            | "Reshuffle" >> beam.Reshuffle()
            | "ReadStretches" >> beam.ParDo(_ReadStretch(self._config))
        )


def split_input(numbered: tuple[int, InputFile | TableStream], config: PipelineConfig) -> Iterator[Stretch]:
    """Cuts the input's file of that number into stretches; what is a stretch already stays one.

    Raises:
        InputError: the file is not what it was, or it cannot be read.
    """
    number, part = numbered
    if not isinstance(part, InputFile):
        yield part
        return
    check_unchanged([part])
    yield from (split_csv_file if config.input.format == "csv" else split_parquet_file)(number, part, config)


@beam.typehints.with_output_types(Interactions)
class _ReadStretch(beam.DoFn):
    def __init__(self, config: PipelineConfig) -> None:
        super().__init__()
        self._config = config
        self._rows_read = Metrics.counter("dotbias", "rows_read")

    def start_bundle(self) -> None:
        self._ahead: Ahead[Interactions | None] = Ahead(PARSERS)

    def process(self, stretch: Stretch) -> Iterator[Interactions]:
        for parse in stretch.pieces(self._config):
            for batch in self._ahead.submit(_interactions, stretch.file, parse, self._config):
                yield from self._counted(batch)

    def finish_bundle(self) -> Iterator[Any]:
        for batch in self._ahead.drain():
            yield from map(GlobalWindows.windowed_value, self._counted(batch))

    def _counted(self, batch: Interactions | None) -> Iterator[Interactions]:
        if batch is not None:
            self._rows_read.inc(batch.num_read)
            progress.rows_read.add(batch.num_read)
            yield batch


def _interactions(file: int, parse: Callable[[], Piece | None], config: PipelineConfig) -> Interactions | None:
    piece = parse()
    if piece is None:
        return None
    offset, parsed = piece
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
