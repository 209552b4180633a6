"""Makes the first pass over the log: finds the rejected rows, counts, and the tokens of the vocabularies."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import apache_beam as beam
import pyarrow as pa

from pipeline.beam.threaded_map import ThreadedFlatMap
from pipeline.config import PipelineConfig
from pipeline.input.columns import ARROW_TYPES
from pipeline.input.interactions import Interactions
from pipeline.input.sources import ReadInteractions, Source
from pipeline.output.tallies import count_known, count_splits
from pipeline.rows.duplicates import LastByTime
from pipeline.rows.splits import is_eval
from pipeline.vocabulary.counting import CountFiles, counters, known_batches, known_tokens
from pipeline.vocabulary.counts_cache import CountsCache
from pipeline.vocabulary.transform import as_lists

# Bytes of input for each group of tokens in the search for duplicates.
BYTES_PER_GROUP = 64 << 20


class Analysis(NamedTuple):
    """Holds the results of the first pass.

    `read` has the batches with their rejected rows. Vocabularies are made of `tokens`, those of the train rows, and of
    `counts`, (token, count) from the cache, by the names that `counters` gives.
    """

    read: beam.PCollection
    tallies: tuple[beam.PCollection, ...]
    tokens: beam.PCollection
    counts: dict[str, beam.PCollection]


def analyze_rows(
    pipeline: beam.Pipeline, config: PipelineConfig, source: Source, cut: beam.pvalue.AsSingleton
) -> Analysis:
    """Reads and counts all rows of the input."""
    read = pipeline | "Analyze" >> ReadInteractions(source, config, "analyze")
    interactions = read | "Distinct" >> Deduplicated(source, config)
    splits = interactions | "CountSplits" >> beam.Map(count_splits, config, cut)
    tokens = interactions | "TrainTokens" >> beam.ParDo(ThreadedFlatMap(train_tokens, config), cut).with_output_types(
        pa.RecordBatch
    )
    return Analysis(read, (splits,), tokens, counts={})


def analyze_files(pipeline: beam.Pipeline, config: PipelineConfig, source: Source, cache: CountsCache) -> Analysis:
    """Counts the files that the cache lacks, and takes the counts of all other files from the cache."""
    counted = pipeline | "CountFiles" >> CountFiles(source, config, cache)
    read = counted | "KnownBatches" >> beam.FlatMap(known_batches, cache, config).with_output_types(Interactions)
    tally = counted | "CountKnown" >> beam.MapTuple(lambda number, counts: count_known(number, counts, config))
    counts = {
        name: counted
        | f"KnownTokens[{name}]" >> beam.FlatMap(known_tokens, name, cache, config).with_output_types(bytes)
        for name in counters(config)
    }
    # TFT needs a batch, although all tokens come as counts.
    types = [ARROW_TYPES[config.columns[name]] for name in config.features]
    no_rows = pa.RecordBatch.from_arrays([pa.array([], dtype) for dtype in types], list(config.features))
    tokens = pipeline | "NoRows" >> beam.Create([as_lists(no_rows)])
    return Analysis(read, (tally,), tokens, counts)


class Deduplicated(beam.PTransform):
    """Drops duplicates if the configuration asks for that."""

    def __init__(self, source: Source, config: PipelineConfig) -> None:
        super().__init__()
        self._source = source
        self._config = config

    def expand(self, interactions: beam.PCollection) -> beam.PCollection:
        if self._config.duplicates == "keep":
            return interactions
        return interactions | LastByTime(self._config, math.ceil(self._source.bytes / BYTES_PER_GROUP) or 1)


def train_tokens(batch: Interactions, config: PipelineConfig, cut: int | None) -> Iterator[pa.RecordBatch]:
    """Yields the features of the train rows; eval rows must not change the vocabulary."""
    in_eval = is_eval(config, cut, batch)
    tokens = batch.rows.select(list(config.features)).filter(pa.array(~in_eval))
    if len(tokens):
        yield as_lists(tokens)
