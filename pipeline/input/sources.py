"""`ReadInteractions`: the raw log -> Arrow record batches and rejected rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import apache_beam as beam
from apache_beam.metrics import Metrics
from apache_beam.transforms.window import GlobalWindows

from pipeline.beam import row_counter as progress
from pipeline.beam.threaded_map import Ahead
from pipeline.config import PipelineConfig
from pipeline.input.interactions import Interactions
from pipeline.input.matching import match_input
from pipeline.input.ranges import FileRange, make_interactions, split_input
from pipeline.manifest import InputFile

if TYPE_CHECKING:
    from pipeline.input.bigquery import TableStream

# Ranges that a bundle parses while it hands on those before.
PARSERS = 2


@dataclass(frozen=True)
class Source:
    """The input: `files` as the manifest describes them, and the `inputs` that are read, by number."""

    files: list[InputFile]
    inputs: Sequence[InputFile | TableStream]

    @property
    def bytes(self) -> int:
        return sum(file.bytes for file in self.files)

    @property
    def names(self) -> list[str]:
        """What a message calls the inputs."""
        return [source.path if isinstance(source, InputFile) else source.name for source in self.inputs]


def describe_input(config: PipelineConfig, project: str | None) -> list[InputFile]:
    """What the configuration names as input, without reading it.

    Raises:
        InputError: it is not there.
    """
    if config.input.format == "bigquery":
        # Its clients take a second to import.
        from pipeline.input.bigquery import describe_table

        return [describe_table(config.input, project)]
    return match_input(config.input.patterns)


def open_source(config: PipelineConfig, files: list[InputFile], project: str | None) -> Source:
    """The input, ready to be read by any worker."""
    if config.input.format == "bigquery":
        from pipeline.input.bigquery import open_session

        return Source(files, open_session(config, project))
    return Source(files, files)


class ReadInteractions(beam.PTransform):
    """Reads the input in ranges that workers share, and yields a batch of `Interactions` for each block of them."""

    def __init__(self, source: Source, config: PipelineConfig) -> None:
        super().__init__()
        self._source = source
        self._config = config

    def expand(self, pipeline: beam.Pipeline) -> beam.PCollection:
        return (
            pipeline
            | "Input" >> beam.Create(list(enumerate(self._source.inputs)))
            | "Split" >> beam.FlatMap(split_input, self._config)
            | "Reshuffle" >> beam.Reshuffle()
            | "ReadRanges" >> beam.ParDo(_ReadRange(self._config))
        )


@beam.typehints.with_output_types(Interactions)
class _ReadRange(beam.DoFn):
    def __init__(self, config: PipelineConfig) -> None:
        super().__init__()
        self._config = config
        self._rows_read = Metrics.counter("dotbias", "rows_read")

    def start_bundle(self) -> None:
        self._ahead: Ahead[Interactions | None] = Ahead(PARSERS)

    def process(self, file_range: FileRange) -> Iterator[Interactions]:
        for parse in file_range.blocks(self._config):
            for batch in self._ahead.submit(make_interactions, file_range.file, parse, self._config):
                yield from self._counted(batch)

    def finish_bundle(self) -> Iterator[Any]:
        for batch in self._ahead.drain():
            yield from map(GlobalWindows.windowed_value, self._counted(batch))

    def _counted(self, batch: Interactions | None) -> Iterator[Interactions]:
        if batch is not None:
            self._rows_read.inc(batch.num_read)
            progress.rows_read.add(batch.num_read)
            yield batch
