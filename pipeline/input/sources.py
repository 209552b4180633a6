"""Reads the raw log into `Interactions`: `ReadInteractions`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import apache_beam as beam
from apache_beam.metrics import Metrics
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.transforms.window import GlobalWindows

from pipeline.beam.row_counter import NAMESPACE, Pass, count_rows
from pipeline.beam.submission import runs_in_one_thread
from pipeline.beam.threaded_map import ThreadedCalls
from pipeline.config import PipelineConfig
from pipeline.input.interactions import Interactions
from pipeline.input.kept_batches import KeptBatches
from pipeline.input.parsing import Block
from pipeline.input.ranges import FileRange, make_interactions, split_input
from pipeline.manifest import InputFile
from pipeline.storage.matching import match_input

if TYPE_CHECKING:
    from pipeline.input.bigquery import TableStream

# Blocks that a bundle parses while it passes on the ones before.
PARSERS = 2


@dataclass(frozen=True)
class Source:
    """Describes the input of a job.

    `files` are described in the manifest. `inputs` are what is read: the same files, or the streams of a table. Their
    position is the `file` number of each batch. `query_bytes` is the size of a query's result. `read` holds the numbers
    of the inputs that are read; all if None. `kept` hands the batches of one pass to the next, if both are made in this
    process.
    """

    files: list[InputFile]
    inputs: Sequence[InputFile | TableStream]
    query_bytes: int = 0
    read: frozenset[int] | None = None
    kept: KeptBatches | None = None

    def only(self, numbers: Iterable[int]) -> Source:
        """Returns a source that reads these inputs alone, under the same numbers."""
        return replace(self, read=frozenset(numbers))

    @property
    def numbered(self) -> list[tuple[int, InputFile | TableStream]]:
        """Lists the inputs that are read, with their numbers."""
        return [pair for pair in enumerate(self.inputs) if self.read is None or pair[0] in self.read]

    @property
    def bytes(self) -> int:
        """Returns the size of the input, from which the number of partitions follows."""
        return sum(file.bytes for file in self.files) + self.query_bytes

    @property
    def names(self) -> list[str]:
        """Returns the names of the inputs for messages."""
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
    """Opens the input so that any worker can read it. A dry run checks a query, but does not run it."""
    if config.input.format == "bigquery":
        from pipeline.input.bigquery import check_query, open_session

        only_check = is_dry_run and config.input.query is not None
        streams, query_bytes = (check_query if only_check else open_session)(config, project)
        return Source(files, streams, query_bytes)
    return Source(files, files)


def keep_batches(source: Source, options: PipelineOptions, kept: KeptBatches | None = None) -> Source:
    """Returns a source whose batches are kept between the passes, if the job's steps share them.

    `kept` may have some already; they count if the files have not changed.
    """
    if not runs_in_one_thread(options):
        return source
    return replace(source, kept=kept if kept is not None and kept.files == source.files else KeptBatches(source.files))


class Batch(Protocol):
    """Holds the rows of a block, or their counts."""

    @property
    def num_read(self) -> int:
        """Returns the number of rows of the block before any was left out."""
        ...


# (number of the file, parses a block, configuration) -> what is made of it; None if no row begins in the block.
Make: TypeAlias = Callable[[int, Callable[[], Block | None], PipelineConfig], Batch | None]


class ReadInteractions(beam.PTransform):
    """Shares the ranges of the input among workers and yields `Interactions` for each block.

    Args:
        source: the input.
        config: how to read it.
        read_to: the pass that the rows are counted under.
        make: parses a block and makes its batch; by default, `Interactions`.
        batch_type: the class of the batches.
    """

    def __init__(
        self,
        source: Source,
        config: PipelineConfig,
        read_to: Pass = "analyze",
        make: Make = make_interactions,
        batch_type: type = Interactions,
    ) -> None:
        super().__init__()
        self._source = source
        self._config = config
        self._read_to = read_to
        self._make = make
        self._batch_type = batch_type

    def expand(self, pipeline: beam.Pipeline) -> beam.PCollection:
        kept = self._source.kept if self._make is make_interactions else None
        return (
            pipeline
            | "Input" >> beam.Create(self._source.numbered)
            | "Split" >> beam.FlatMap(split_input, self._config)
            | "Reshuffle" >> beam.Reshuffle()
            | "ReadRanges"
            >> beam.ParDo(_ReadRange(self._config, self._read_to, self._make, kept)).with_output_types(self._batch_type)
        )


class _ReadRange(beam.DoFn):
    def __init__(
        self,
        config: PipelineConfig,
        read_to: Pass,
        make: Make = make_interactions,
        kept: KeptBatches | None = None,
    ) -> None:
        super().__init__()
        self._config = config
        self._read_to: Pass = read_to
        self._make = make
        self._kept = kept
        self._rows_read = Metrics.counter(NAMESPACE, f"rows_read_to_{read_to}")

    def start_bundle(self) -> None:
        self._calls: ThreadedCalls[Batch | None] = ThreadedCalls(PARSERS)

    def process(self, file_range: FileRange) -> Iterator[Batch]:
        for number, parse in enumerate(file_range.blocks(self._config)):
            for batch in self._calls.submit(self._batch, file_range, number, parse):
                yield from self._counted(batch)

    def finish_bundle(self) -> Iterator[Any]:
        for batch in self._calls.drain():
            yield from map(GlobalWindows.windowed_value, self._counted(batch))

    def _batch(self, file_range: FileRange, number: int, parse: Callable[[], Block | None]) -> Batch | None:
        if self._kept is None:
            return self._make(file_range.file, parse, self._config)
        place, is_last = (file_range, number), self._read_to == "transform"
        kept = self._kept.take(place) if is_last else self._kept.get(place)
        if kept is not None:
            return kept
        batch = make_interactions(file_range.file, parse, self._config)
        if batch is not None and not is_last:
            self._kept.add(place, batch)
        return batch

    def _counted(self, batch: Batch | None) -> Iterator[Batch]:
        if batch is not None:
            self._rows_read.inc(batch.num_read)
            count_rows(self._read_to, batch.num_read)
            yield batch
