"""Reads the raw log into `Interactions`: `ReadInteractions`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import apache_beam as beam
from apache_beam.metrics import Metrics
from apache_beam.transforms.window import GlobalWindows

from pipeline.beam.row_counter import Pass, count_rows
from pipeline.beam.threaded_map import ThreadedCalls
from pipeline.config import PipelineConfig
from pipeline.input.interactions import Interactions
from pipeline.input.matching import match_input
from pipeline.input.ranges import FileRange, make_interactions, split_input
from pipeline.manifest import InputFile

if TYPE_CHECKING:
    from pipeline.input.bigquery import TableStream

# Blocks that a bundle parses while it passes on the ones before.
PARSERS = 2


@dataclass(frozen=True)
class Source:
    """Describes the input of a job.

    `files` are described in the manifest. `inputs` are what is read: the same files, or the streams of a table. Their
    position is the `file` number of each batch. `query_bytes` is the size of a query's result.
    """

    files: list[InputFile]
    inputs: Sequence[InputFile | TableStream]
    query_bytes: int = 0

    @property
    def bytes(self) -> int:
        """Size of the input, which the number of partitions follows."""
        return sum(file.bytes for file in self.files) + self.query_bytes

    @property
    def names(self) -> list[str]:
        """Names of the inputs for messages."""
        return [source.path if isinstance(source, InputFile) else source.name for source in self.inputs]


def describe_input(config: PipelineConfig, project: str | None) -> list[InputFile]:
    """Describes the input that the configuration names, without reading it.

    Raises:
        InputError: it does not exist, or may not be read.
    """
    if config.input.format == "bigquery":
        # Importing its clients takes a second.
        from pipeline.input.bigquery import describe_table

        return [describe_table(config.input, project)]
    return match_input(config.input.patterns)


def open_source(
    config: PipelineConfig, files: list[InputFile], project: str | None, is_dry_run: bool = False
) -> Source:
    """Opens the input for reading by any worker. A dry run checks a query, but does not run it."""
    if config.input.format == "bigquery":
        from pipeline.input.bigquery import check_query, open_session

        only_check = is_dry_run and config.input.query is not None
        streams, query_bytes = (check_query if only_check else open_session)(config, project)
        return Source(files, streams, query_bytes)
    return Source(files, files)


class ReadInteractions(beam.PTransform):
    """Shares the ranges of the input among workers and yields `Interactions` for each block.

    Args:
        source: the input.
        config: how to read it.
        read_to: the pass that the rows are counted under.
    """

    def __init__(self, source: Source, config: PipelineConfig, read_to: Pass = "analyze") -> None:
        super().__init__()
        self._source = source
        self._config = config
        self._read_to = read_to

    def expand(self, pipeline: beam.Pipeline) -> beam.PCollection:
        return (
            pipeline
            | "Input" >> beam.Create(list(enumerate(self._source.inputs)))
            | "Split" >> beam.FlatMap(split_input, self._config)
            | "Reshuffle" >> beam.Reshuffle()
            | "ReadRanges" >> beam.ParDo(_ReadRange(self._config, self._read_to))
        )


@beam.typehints.with_output_types(Interactions)
class _ReadRange(beam.DoFn):
    def __init__(self, config: PipelineConfig, read_to: Pass) -> None:
        super().__init__()
        self._config = config
        self._read_to: Pass = read_to
        self._rows_read = Metrics.counter("dotbias", f"rows_read_to_{read_to}")

    def start_bundle(self) -> None:
        self._calls: ThreadedCalls[Interactions | None] = ThreadedCalls(PARSERS)

    def process(self, file_range: FileRange) -> Iterator[Interactions]:
        for parse in file_range.blocks(self._config):
            for batch in self._calls.submit(make_interactions, file_range.file, parse, self._config):
                yield from self._counted(batch)

    def finish_bundle(self) -> Iterator[Any]:
        for batch in self._calls.drain():
            yield from map(GlobalWindows.windowed_value, self._counted(batch))

    def _counted(self, batch: Interactions | None) -> Iterator[Interactions]:
        if batch is not None:
            self._rows_read.inc(batch.num_read)
            count_rows(self._read_to, batch.num_read)
            yield batch
