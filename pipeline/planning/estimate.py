"""Estimates what preprocessing a log takes, from a sample of the log; starts no job."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from pipeline.config import PipelineConfig
from pipeline.input.csv_files import CsvRange, csv_format, decompressed, split_csv_file
from pipeline.input.parquet_files import open_parquet, split_parquet_file
from pipeline.input.parsing import Parsed, parse_lines, record_ends
from pipeline.input.ranges import label_rows, take_window
from pipeline.manifest import DotbiasError, InputFile
from pipeline.planning.population import estimate_population
from pipeline.planning.sizing import Size
from pipeline.rows.token_hash import TOKEN_TYPES, token_hashes
from pipeline.storage.files import naming, open_file
from pipeline.storage.matching import match_input
from pipeline.vocabulary.threshold import automatic_threshold

# Ranges that are sampled, all over the input, and the bytes of each.
NUM_SAMPLES = 64
SAMPLE_BYTES = 1 << 18
# Only the beginning of a compressed file can be sampled. It is long compared to what a decompressor reads in advance,
# which counts as sampled too.
COMPRESSED_SAMPLE_BYTES = 1 << 24
COMPRESSED_FILES = 16


@dataclass(frozen=True)
class Plan:
    """Holds expected counts: the rows to read, and the size of their dataset."""

    rows_read: int
    rejected_fraction: float
    size: Size
    sampled_rows: int


@dataclass
class _Sample:
    """Holds the counts of the sampled ranges; `fraction` is their share of the input."""

    fraction: float = 0.0
    rows: int = 0
    kept: int = 0
    rejected: int = 0
    # By feature: the distinct tokens of each range, and their counts in it.
    tokens: dict[str, list[npt.NDArray[np.uint64]]] = field(default_factory=dict)
    counts: dict[str, list[npt.NDArray[np.int64]]] = field(default_factory=dict)

    def add(self, fraction: float, parsed: Parsed, config: PipelineConfig) -> None:
        read = len(parsed.rows) + len(parsed.rejected)
        parsed, _ = take_window(parsed, config)
        parsed = label_rows(parsed, config)
        self.fraction += fraction
        self.rows += read
        self.kept += len(parsed.rows)
        self.rejected += len(parsed.rejected)
        for name in config.features if len(parsed.rows) else ():
            hashes = token_hashes(parsed.rows[name].cast(TOKEN_TYPES[config.columns[name]]))
            distinct, counts = np.unique(hashes, return_counts=True)
            self.tokens.setdefault(name, []).append(distinct)
            self.counts.setdefault(name, []).append(counts)


def make_plan(config: PipelineConfig) -> Plan:
    """Reads a sample from all over the input and scales it up.

    Raises:
        DotbiasError: the input is not there, is not in files, or the sample has no row that would be kept.
    """
    if config.input.format == "bigquery":
        raise DotbiasError("`--stage plan` reads files; BigQuery's own console shows the rows and bytes of a table.")
    files = match_input(config.input.patterns)
    sample = _Sample()
    for fraction, parsed in (_csv_samples if config.input.format == "csv" else _parquet_samples)(files, config):
        sample.add(fraction, parsed, config)
    if sample.kept == 0:
        raise DotbiasError(
            f"none of the {sample.rows:,} sampled rows would be kept; "
            "`--stage preprocess` writes them to rejected/ with the reasons."
        )
    rows_read = round(sample.rows / sample.fraction)
    tokens = {
        name: _vocabulary_size(name, sample, config)
        for name, feature in config.features.items()
        if feature.encoding == "vocabulary"
    }
    size = Size(
        rows=round(rows_read * sample.kept / sample.rows),
        tokens=tokens,
        token_types={name: config.columns[name] for name in tokens},
        payload_bytes=_payload_bytes(config),
        rows_per_shard=config.rows_per_shard,
        joined=tuple(config.joined_features),
        has_timestamp=config.timestamp_column is not None,
    )
    return Plan(rows_read, sample.rejected / sample.rows, size, sample.rows)


def _vocabulary_size(name: str, sample: _Sample, config: PipelineConfig) -> int:
    feature, samples = config.features[name], sample.tokens[name]
    train = 1 - config.split.eval_fraction
    if sample.fraction > 0.99:
        # Only the choice of train rows is left to estimate.
        _, inverse = np.unique(np.concatenate(samples), return_inverse=True)
        counts = np.rint(np.bincount(inverse, np.concatenate(sample.counts[name])) * train)
        threshold = config.threshold_of(name) or automatic_threshold(int(counts.sum()), int((counts == 1).sum()))
        survivors = int((counts >= threshold).sum())
        return min(survivors, feature.top_k or survivors)
    population = estimate_population(samples)
    draws = np.mean([len(tokens) for tokens in samples]) * len(samples) / sample.fraction
    present = population.at_least(float(draws) * train, 1)
    rows = sample.kept / sample.fraction * train
    once_seen = present - population.at_least(float(draws) * train, 2)
    threshold = config.threshold_of(name) or automatic_threshold(round(rows), round(once_seen))
    often = population.at_least(float(draws) * train, threshold)
    # In a log that is sorted by this feature, all rows of a token are in one sample.
    tokens, samples_of = np.unique(np.concatenate(samples), return_counts=True)
    once = np.isin(np.concatenate(samples), tokens[samples_of == 1])
    alone = np.concatenate(sample.counts[name])[once] * train >= threshold - 0.5
    expected = often + (present - often) * (alone.mean() if len(alone) else 0.0)
    return round(min(expected, feature.top_k or expected))


def _payload_bytes(config: PipelineConfig) -> int:
    """Returns the bytes of a row in the shuffle to the shards; a string counts as 16 bytes."""
    of_features = sum(
        4 if feature.encoding == "vocabulary" else 8 if config.columns[name] == "int64" else 20
        for name, feature in config.features.items()
    )
    return of_features + 4 + (8 if config.timestamp_column else 0)


def _csv_samples(files: list[InputFile], config: PipelineConfig) -> Iterator[tuple[float, Parsed]]:
    """Yields (share of the input, rows) of ranges that begin all over the input."""
    total = sum(file.bytes for file in files)
    every = max(total / NUM_SAMPLES, SAMPLE_BYTES)
    begin, goal = 0, 0.0
    for number, file in enumerate(files):
        whole = next(split_csv_file(number, file, config), None)
        if whole is not None and goal < begin + file.bytes:
            if whole.end is None:
                yield _beginning(whole, file, total, config)
                goal = begin + max(file.bytes, total / COMPRESSED_FILES)
            while goal < begin + file.bytes:
                start = max(round(goal) - begin, whole.start)
                end = min(start + SAMPLE_BYTES, file.bytes)
                # The header's bytes count with the first rows.
                share = (end - (start if start > whole.start else 0)) / total
                for parse in replace(whole, start=start, end=end).blocks(config):
                    if (block := parse()) is not None:
                        yield share, block[1]
                goal += every
        begin += file.bytes


def _beginning(file_range: CsvRange, file: InputFile, total: int, config: PipelineConfig) -> tuple[float, Parsed]:
    """Returns the first lines of a file that cannot be split, and their share of the input in compressed bytes."""
    # Text takes about a quarter when it is compressed.
    with naming(file.path), open_file(file.path, COMPRESSED_SAMPLE_BYTES // 4) as raw:
        stream, _ = decompressed(raw)
        stream.read(file_range.start)
        data = stream.read(COMPRESSED_SAMPLE_BYTES)
        consumed = file.bytes if len(data) < COMPRESSED_SAMPLE_BYTES else raw.tell()
    ends = record_ends(data)
    data = data if consumed == file.bytes else data[: ends[-1] if len(ends) else 0]
    form = csv_format(file_range.names, config)
    # The sample stands for the rest of its own file and for the files that are skipped.
    return consumed / total, parse_lines(data, file_range.start, form)


def _parquet_samples(files: list[InputFile], config: PipelineConfig) -> Iterator[tuple[float, Parsed]]:
    groups = [group for number, file in enumerate(files) for group in split_parquet_file(number, file, config)]
    total = 0
    for file in files:
        with open_parquet(file.path) as parquet:
            total += parquet.metadata.num_rows
    for group in groups[:: max(1, len(groups) // NUM_SAMPLES)]:
        _, parsed = next(group.blocks(config))()
        yield (len(parsed.rows) + len(parsed.rejected)) / total, parsed
