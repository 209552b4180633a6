"""What preprocessing a log will take, from a sample of it; nothing is started."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import pyarrow.parquet

from pipeline.config import PipelineConfig
from pipeline.input.csv_files import CsvRange, decompressed, split_csv_file
from pipeline.input.matching import match_input
from pipeline.input.parquet_files import split_parquet_file
from pipeline.input.parsing import CsvFormat, Parsed, parse_lines, record_ends
from pipeline.input.ranges import label_rows, take_window
from pipeline.manifest import DotbiasError, InputFile
from pipeline.planning.population import estimate_population
from pipeline.planning.sizing import Size
from pipeline.rows.token_hash import TOKEN_TYPES, token_hashes
from pipeline.storage.files import naming, open_file

# Stretches that are looked at, all over the input, and the bytes of each.
SAMPLE_STRETCHES = 64
STRETCH_BYTES = 1 << 18
# Of a compressed file only the beginning can be looked at. It is long beside what a decompressor reads ahead, which
# counts as looked at too.
COMPRESSED_STRETCH_BYTES = 1 << 24
COMPRESSED_FILES = 16


@dataclass(frozen=True)
class Plan:
    """Expected counts: rows that will be read, and the dataset that they make."""

    rows_read: int
    rejected_fraction: float
    size: Size
    sampled_rows: int


@dataclass
class _Sample:
    """What the stretches looked at hold; `fraction` is their share of the input."""

    fraction: float = 0.0
    rows: int = 0
    kept: int = 0
    rejected: int = 0
    # By feature: the distinct tokens of each stretch, and how often each came in it.
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
    for fraction, parsed in (_csv_stretches if config.input.format == "csv" else _parquet_stretches)(files, config):
        sample.add(fraction, parsed, config)
    if sample.kept == 0:
        raise DotbiasError(
            f"none of the {sample.rows:,} rows that were looked at would be kept; "
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
    )
    return Plan(rows_read, sample.rejected / sample.rows, size, sample.rows)


def _vocabulary_size(name: str, sample: _Sample, config: PipelineConfig) -> int:
    feature, stretches = config.features[name], sample.tokens[name]
    train = 1 - config.split.eval_fraction
    if sample.fraction > 0.99:
        # Nothing is left to be guessed but which rows are of train.
        _, inverse = np.unique(np.concatenate(stretches), return_inverse=True)
        counts = np.rint(np.bincount(inverse, np.concatenate(sample.counts[name])) * train)
        survivors = int((counts >= feature.frequency_threshold).sum())
        return min(survivors, feature.top_k or survivors)
    population = estimate_population(stretches)
    draws = np.mean([len(tokens) for tokens in stretches]) * len(stretches) / sample.fraction
    present = population.at_least(float(draws) * train, 1)
    often = population.at_least(float(draws) * train, feature.frequency_threshold)
    # In a log that is sorted by this feature, all rows of a token stand in one stretch.
    tokens, stretches_of = np.unique(np.concatenate(stretches), return_counts=True)
    once = np.isin(np.concatenate(stretches), tokens[stretches_of == 1])
    alone = np.concatenate(sample.counts[name])[once] * train >= feature.frequency_threshold - 0.5
    expected = often + (present - often) * (alone.mean() if len(alone) else 0.0)
    return round(min(expected, feature.top_k or expected))


def _payload_bytes(config: PipelineConfig) -> int:
    """Of a row on its way to the shards; a string is taken to have 16 bytes."""
    of_features = sum(
        4 if feature.encoding == "vocabulary" else 8 if config.columns[name] == "int64" else 20
        for name, feature in config.features.items()
    )
    return of_features + 4 + (8 if config.timestamp_column else 0)


def _csv_stretches(files: list[InputFile], config: PipelineConfig) -> Iterator[tuple[float, Parsed]]:
    """(share of the input, rows) of stretches that begin all over it."""
    total = sum(file.bytes for file in files)
    every = max(total / SAMPLE_STRETCHES, STRETCH_BYTES)
    begin, goal = 0, 0.0
    for number, file in enumerate(files):
        whole = next(split_csv_file(number, file, config), None)
        if whole is not None and goal < begin + file.bytes:
            if whole.end is None:
                yield _beginning(whole, file, total, config)
                goal = begin + max(file.bytes, total / COMPRESSED_FILES)
            while goal < begin + file.bytes:
                start = max(round(goal) - begin, whole.start)
                end = min(start + STRETCH_BYTES, file.bytes)
                # The header's bytes belong to the first rows.
                share = (end - (start if start > whole.start else 0)) / total
                for parse in replace(whole, start=start, end=end).blocks(config):
                    if (block := parse()) is not None:
                        yield share, block[1]
                goal += every
        begin += file.bytes


def _beginning(stretch: CsvRange, file: InputFile, total: int, config: PipelineConfig) -> tuple[float, Parsed]:
    """The first lines of a file that cannot be cut, and the share of the input that their compressed bytes are."""
    with naming(file.path), open_file(file.path) as raw:
        stream, _ = decompressed(raw)
        stream.read(stretch.start)
        data = stream.read(COMPRESSED_STRETCH_BYTES)
        consumed = file.bytes if len(data) < COMPRESSED_STRETCH_BYTES else raw.tell()
    ends = record_ends(data)
    data = data if consumed == file.bytes else data[: ends[-1] if len(ends) else 0]
    types = tuple((name, config.columns[name]) for name in config.needed_columns)
    form = CsvFormat(stretch.names, types, config.input.delimiter, config.input.newlines_in_values)
    # Stands for the rest of its own file, and of those that are passed over.
    return consumed / total, parse_lines(data, stretch.start, form)


def _parquet_stretches(files: list[InputFile], config: PipelineConfig) -> Iterator[tuple[float, Parsed]]:
    groups = [group for number, file in enumerate(files) for group in split_parquet_file(number, file, config)]
    total = 0
    for file in files:
        with naming(file.path), open_file(file.path) as raw, pyarrow.parquet.ParquetFile(raw) as parquet:
            total += parquet.metadata.num_rows
    for group in groups[:: max(1, len(groups) // SAMPLE_STRETCHES)]:
        _, parsed = next(group.blocks(config))()
        yield (len(parsed.rows) + len(parsed.rejected)) / total, parsed
