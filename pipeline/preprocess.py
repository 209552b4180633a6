"""Builds the Beam graph that makes a dataset from a raw log, and runs it."""

from __future__ import annotations

import functools
import logging
import math
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import tensorflow_transform.beam as tft_beam
from apache_beam.options.pipeline_options import GoogleCloudOptions, PipelineOptions

from pipeline.analysis import Analysis, Deduplicated, analyze_files, analyze_rows
from pipeline.beam import row_counter
from pipeline.beam.options import ViewedOptions
from pipeline.beam.submission import Submission, ends_with_the_job, is_dry_run, runs_in_process, submission
from pipeline.beam.threaded_map import ThreadedFlatMap
from pipeline.config import PipelineConfig
from pipeline.input.columns import ARROW_TYPES
from pipeline.input.interactions import LABEL, Interactions
from pipeline.input.kept_batches import KeptBatches
from pipeline.input.sources import ReadInteractions, Source, describe_input, keep_batches, open_source
from pipeline.manifest import (
    REJECTED_DIRECTORY,
    DatasetManifest,
    InputFile,
    Progress,
    counts_name,
    join,
    read_manifest,
    vocabulary_name,
)
from pipeline.output.attempts import (
    ATTEMPTS_DIRECTORY,
    WrittenFile,
    delete_ended_attempts,
    delete_leftovers,
    new_attempt,
    temporary_directory,
)
from pipeline.output.coders import register_coders
from pipeline.output.existing import existing_manifest
from pipeline.output.fan_out import rows_of_input, takes_two_steps
from pipeline.output.manifest_writer import WriteManifest, info_path, read_info
from pipeline.output.rejected import WriteRejected
from pipeline.output.shards import EncodedRows, Layout, WriteShards, draw_shards
from pipeline.output.tallies import (
    Tally,
    add_tallies,
    count_encoded,
    count_read,
    plan_layout,
    show_in_counters,
)
from pipeline.output.transform_fn import WriteTransformFn
from pipeline.output.usual_tokens import WriteUsualTokens
from pipeline.rows.splits import CutInTime, given_cut, is_eval, needs_sample
from pipeline.storage.files import open_file
from pipeline.storage.lock import lock
from pipeline.vocabulary.combinations import combination_name
from pipeline.vocabulary.counts_cache import CountsCache, counts_cache, window_days
from pipeline.vocabulary.frequency import FrequencyVocabulary
from pipeline.vocabulary.join_indices import JoinIndices
from pipeline.vocabulary.sorted_ranges import SortedVocabulary, num_join_partitions
from pipeline.vocabulary.transform import as_lists, preprocessing_fn, tensor_adapter_config, without_lists

_LOGGER = logging.getLogger(__name__)

# Bytes of input for each partition of the counts of tokens.
BYTES_PER_PARTITION = 256 << 20
MAX_PARTITIONS = 1 << 15

# Columns that bypass TFT: the place of the batch in the input, and each row's shard.
_FILE, _OFFSET, _SHARD = "_file", "_offset", "_shard"


def preprocess(
    dataset: str,
    config: PipelineConfig,
    beam_arguments: list[str],
    report: Progress | None = None,
    kept: KeptBatches | None = None,
) -> DatasetManifest | Submission:
    """Makes a dataset, unless it is complete; or submits or checks the job, if Beam's flags say so.

    Each attempt writes to a directory of its own and is published at its end, so attempts cannot harm each other: the
    first to end is the dataset, and others with the same configuration and input use it.

    Args:
        dataset: the directory to make.
        config: checked configuration.
        beam_arguments: the command line's arguments for Beam.
        report: called with the progress.
        kept: batches that were read ahead.

    Raises:
        DotbiasError: the input is not usable, the directory holds another dataset, or another process of this kind
            writes to it.
    """
    options = ViewedOptions(beam_arguments)
    project = options.view_as(GoogleCloudOptions).project
    files = describe_input(config, project)
    if is_dry_run(options):
        return existing_manifest(dataset, config, files) or _check(options, config, files)
    with lock(f"{dataset.rstrip('/')}.lock", f"dataset {dataset}"):
        manifest = existing_manifest(dataset, config, files)
        if manifest is not None:
            delete_leftovers(join(dataset, ATTEMPTS_DIRECTORY))
            return manifest
        delete_ended_attempts(dataset)
        attempt = new_attempt(dataset, on_a_service=not runs_in_process(options))
        source, cache = open_source(config, files, project), counts_cache(config, files)
        source = keep_batches(source, options, kept)
        try:
            with row_counter.reported(report), beam.Pipeline(options=options) as pipeline:
                build(pipeline, dataset, attempt, config, source, cache)
        except Exception as error:
            # A job on a service may lose to another one that is published first.
            manifest = existing_manifest(dataset, config, files)
            if manifest is None:
                raise
            _LOGGER.warning("%s has been published by another attempt; this one failed: %s", dataset, error)
            return manifest
        if not ends_with_the_job(options):
            return submission(pipeline.result)
        if cache is not None:
            cache.delete_stale()
        return read_manifest(dataset, open_file)


def _check(options: PipelineOptions, config: PipelineConfig, files: list[InputFile]) -> Submission:
    """Builds the job and has Beam check it."""
    source = open_source(config, files, options.view_as(GoogleCloudOptions).project, is_dry_run=True)
    if not source.inputs and runs_in_process(options):
        # An in-process runner runs the job; a query that was only checked has no rows for it.
        return Submission(job_id=None)
    # Building the graph already writes files.
    with tempfile.TemporaryDirectory() as elsewhere, beam.Pipeline(options=options) as pipeline:
        cache = counts_cache(config, files)
        build(pipeline, elsewhere, new_attempt(elsewhere, on_a_service=True), config, source, cache)
    return Submission(job_id=None)


def build(
    pipeline: beam.Pipeline,
    dataset: str,
    attempt: str,
    config: PipelineConfig,
    source: Source,
    cache: CountsCache | None = None,
) -> beam.PCollection:
    """Builds the whole graph; its result is the path of the manifest.

    The input is read twice, to analyze and to transform it, so that no raw row is stored in between; a split by time
    that has to find its cut reads it once more, first. Files in the cache of counts are not read to analyze them, and
    only those with rows of the window are transformed.

    Args:
        pipeline: gets the steps.
        dataset: directory of the dataset, where the last step publishes the attempt.
        attempt: directory that all other steps write to, from `new_attempt`.
        config: checked configuration.
        source: the input.
        cache: the counts of the input's files; None to count all rows.
    """
    register_coders()
    temporary = temporary_directory(attempt)
    cut = beam.pvalue.AsSingleton(pipeline | "CutInTime" >> _FindCut(source, config))
    if cache is None:
        analysis = analyze_rows(pipeline, config, source, cut)
        to_transform = source
    else:
        analysis = analyze_files(pipeline, config, source, cache)
        to_transform = source.only(cache.needed(window_days(config)))
    rejected = analysis.read | WriteRejected(attempt, temporary, source.names)
    tally = (
        (analysis.read | "CountRead" >> beam.Map(count_read), *analysis.tallies, rejected.tallies)
        | beam.Flatten()
        | "ShowInCounters" >> beam.Map(show_in_counters)
        | "AddUp" >> _add_up()
    )
    layout = tally | "PlanLayout" >> beam.Map(
        _plan_layout, config, source, join(attempt, REJECTED_DIRECTORY), after=beam.pvalue.AsList(rejected.files)
    )

    vocabularies = frequency_vocabularies(attempt, temporary, config, source.bytes, analysis.counts)
    encode = functools.partial(
        preprocessing_fn,
        features=config.features,
        vocabularies={name: vocabularies[name] for name in vocabularies if name not in config.joined_features},
    )
    passthrough = passthrough_schema(config)
    with tft_beam.Context(temp_dir=join(temporary, "tft"), passthrough_keys=set(passthrough.names)):
        transform_fn = (
            analysis.tokens,
            tensor_adapter_config(config, pa.schema([])),
        ) | tft_beam.AnalyzeDataset(encode)
        rows = (
            pipeline
            | "Transform" >> ReadInteractions(to_transform, config, "transform")
            | "DistinctAgain" >> Deduplicated(source, config)
            | "DrawShards"
            >> beam.ParDo(ThreadedFlatMap(place_rows, config), cut, beam.pvalue.AsSingleton(layout)).with_output_types(
                pa.RecordBatch
            )
        )
        (encoded, _) = (
            (rows, tensor_adapter_config(config, passthrough)),
            transform_fn,
        ) | tft_beam.TransformDataset(output_record_batches=True)
        saved = transform_fn | WriteTransformFn(attempt)
    batches = encoded | "EncodedRows" >> beam.ParDo(
        ThreadedFlatMap(encoded_rows, shard_schema(config, joined=False))
    ).with_output_types(EncodedRows)
    written = saved
    if config.joined_features:
        indices, sizes = sort_vocabularies({name: vocabularies[name] for name in config.joined_features}, analysis)
        num_oov_buckets = {name: config.features[name].num_oov_buckets for name in indices}
        num_partitions = num_join_partitions(_num_partitions(source.bytes))
        batches = batches | JoinIndices(EncodedRows, num_oov_buckets, indices, sizes, num_partitions)
        written = (saved, sizes) | "AllVocabularies" >> beam.Flatten()
    usual = write_usual_tokens(attempt, temporary, config, source.bytes, analysis, after=written)

    rows_at_most = rows_of_input(to_transform.bytes, config.input.format, to_transform.names)
    two_steps = takes_two_steps(rows_at_most, math.ceil(rows_at_most / config.rows_per_shard))
    shards = batches | WriteShards(attempt, temporary, shard_schema(config), layout, config.seed, two_steps)
    encoded_tally = (
        batches
        | "CountEncoded"
        >> beam.ParDo(ThreadedFlatMap(_CountEncoded(temporary, config)), beam.pvalue.AsSingleton(layout))
        | "AddUpEncoded" >> _add_up()
    )
    others = (rejected.files, saved, *usual) | "OtherFiles" >> beam.Flatten()
    return (tally, encoded_tally, shards) | WriteManifest(dataset, attempt, config, source.files, others)


class _FindCut(beam.PTransform):
    """Yields the timestamp that divides the splits; None if the split needs none."""

    def __init__(self, source: Source, config: PipelineConfig) -> None:
        super().__init__()
        self._source = source
        self._config = config

    def expand(self, pipeline: beam.Pipeline) -> beam.PCollection:
        if not needs_sample(self._config):
            return pipeline | "Given" >> beam.Create([given_cut(self._config)])
        return (
            pipeline
            | ReadInteractions(self._source, self._config, "cut")
            | Deduplicated(self._source, self._config)
            | CutInTime(self._config)
        )


def frequency_vocabularies(
    directory: str,
    temporary: str,
    config: PipelineConfig,
    input_bytes: int,
    counts: Mapping[str, beam.PCollection],
) -> dict[str, FrequencyVocabulary]:
    """Makes the transform that builds each vocabulary; `counts` are added to those of the rows."""
    return {
        name: (SortedVocabulary if feature.lookup == "join" else FrequencyVocabulary)(
            feature=name,
            path=join(directory, vocabulary_name(name)),
            counts_path=join(directory, counts_name(name)),
            info_path=info_path(temporary, name),
            temporary=temporary,
            token_type="int64" if config.columns[name] == "int64" else "string",
            frequency_threshold=config.threshold_of(name),
            top_k=feature.top_k,
            num_partitions=_num_partitions(input_bytes),
            counts=counts.get(name),
        )
        for name, feature in config.features.items()
        if feature.encoding == "vocabulary"
    }


def sort_vocabularies(
    vocabularies: Mapping[str, FrequencyVocabulary], analysis: Analysis
) -> tuple[dict[str, beam.PCollection], beam.PCollection]:
    """Returns by feature the indices of its tokens, and (feature, size) of all; see `SortedVocabulary`."""
    made = {name: analysis.tokens | f"SortVocabulary[{name}]" >> vocabularies[name] for name in vocabularies}
    sizes = tuple(size for _, size in made.values()) | "VocabularySizes" >> beam.Flatten()
    return {name: indices for name, (indices, _) in made.items()}, sizes


def write_usual_tokens(
    directory: str,
    temporary: str,
    config: PipelineConfig,
    input_bytes: int,
    analysis: Analysis,
    after: beam.PCollection,
) -> list[beam.PCollection]:
    """Writes the tokens of further features that go with each user or item; see `WriteUsualTokens`."""
    return [
        analysis.tokens
        | f"WriteUsualTokens[{features[0]}]"
        >> WriteUsualTokens(
            features=features,
            directory=directory,
            vocabulary_path=join(directory, vocabulary_name(features[0])),
            temporary=temporary,
            num_partitions=_num_partitions(input_bytes),
            counts=analysis.counts.get(combination_name(features)),
            after=after,
        )
        for features in config.combined_features
    ]


def _num_partitions(input_bytes: int) -> int:
    return min(MAX_PARTITIONS, math.ceil(input_bytes / BYTES_PER_PARTITION) or 1)


def shard_schema(config: PipelineConfig, joined: bool = True) -> pa.Schema:
    """Returns the columns of the shards: indices (tokens, if hashed, or not `joined` yet), label, timestamp."""
    features = [
        (
            name,
            pa.int32()
            if feature.encoding == "vocabulary" and (joined or feature.lookup == "table")
            else ARROW_TYPES[config.columns[name]],
        )
        for name, feature in config.features.items()
    ]
    timestamp = [(config.timestamp_column, pa.int64())] if config.timestamp_column else []
    return pa.schema([*features, (LABEL, pa.float32()), *timestamp])


def passthrough_schema(config: PipelineConfig) -> pa.Schema:
    """Returns the columns that bypass TFT."""
    timestamp = [(config.timestamp_column, pa.int64())] if config.timestamp_column else []
    return pa.schema(
        [(LABEL, pa.float32()), *timestamp, (_FILE, pa.int64()), (_OFFSET, pa.int64()), (_SHARD, pa.int32())]
    )


def place_rows(
    batch: Interactions, config: PipelineConfig, cut: int | None, layout: Layout
) -> Iterator[pa.RecordBatch]:
    """Yields all rows, with their place in the input and their shard as further columns."""
    count = len(batch.rows)
    if count:
        in_eval = is_eval(config, cut, batch)
        places = {
            _FILE: pa.array(np.full(count, batch.file)),
            _OFFSET: pa.array(np.full(count, batch.offset)),
            _SHARD: pa.array(draw_shards(layout, in_eval, config.seed, batch.file, batch.offset)),
        }
        columns = {name: batch.rows[name] for name in shard_schema(config).names} | places
        yield as_lists(pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns)))


def encoded_rows(transformed: tuple[pa.RecordBatch, Any], schema: pa.Schema) -> Iterator[EncodedRows]:
    """Converts what TFT yields to rows with the columns of the shards."""
    flat = without_lists(transformed[0])
    columns = [flat[name].cast(schema.field(name).type) for name in schema.names]
    rows = pa.RecordBatch.from_arrays(columns, schema=schema)
    yield EncodedRows(flat[_FILE][0].as_py(), flat[_OFFSET][0].as_py(), rows, flat[_SHARD].to_numpy())


def _add_up() -> beam.PTransform:
    return beam.CombineGlobally(add_tallies)


def _plan_layout(
    tally: Tally, config: PipelineConfig, source: Source, rejected_directory: str, after: Iterable[WrittenFile]
) -> Layout:
    # An error that points to the rejected rows must come after they are written.
    del after
    return plan_layout(tally, config, source, rejected_directory)


class _CountEncoded:
    """Calls `count_encoded`; reads the sizes of the vocabularies once."""

    def __init__(self, temporary: str, config: PipelineConfig) -> None:
        self._temporary = temporary
        self._config = config
        self._vocabulary_sizes: dict[str, int] | None = None

    def __call__(self, batch: EncodedRows, layout: Layout) -> Iterator[Tally]:
        if self._vocabulary_sizes is None:
            # An encoded batch exists only after the vocabularies are written.
            info = read_info(self._temporary, self._config)
            self._vocabulary_sizes = {name: vocabulary.size for name, vocabulary in info.items()}
        yield count_encoded(batch, layout, self._vocabulary_sizes, self._config)
