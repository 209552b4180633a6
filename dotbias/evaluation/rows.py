"""Holds the rows to evaluate as columns of numbers: 4 bytes for each row and feature, whatever the tokens are.

The code of an id is a number. Known ids have codes in [0, known): the tokens of the vocabulary in index order, or the
distinct tokens of the train rows where the feature is hashed. Ids that train does not have come after them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dotbias.evaluation.user_sample import SampledFrom, SampledRows
from pipeline.config import PipelineConfig
from pipeline.input.interactions import LABEL
from pipeline.input.ranges import make_interactions, split_input
from pipeline.manifest import DatasetManifest, DotbiasError, InputFile, Progress

Codes = npt.NDArray[np.int32]

# 64-bit offsets, since the tokens of a large vocabulary can take more than 2 GiB.
_TOKEN_TYPES = {"int64": pa.int64(), "string": pa.large_string()}


@dataclass(frozen=True)
class Ids:
    """Maps codes of a feature to tokens: `tokens[code]`, first the `known` ones of train, then others.

    `named` is False if the other codes are OOV buckets, whose tokens are lost.
    """

    tokens: pa.Array
    known: int
    named: bool


@dataclass(frozen=True)
class Rows:
    """Holds columns of equal length: the codes of each feature, labels in [0, 1], and timestamps if there are any."""

    ids: Mapping[str, Ids]
    codes: Mapping[str, Codes]
    labels: npt.NDArray[np.float32]
    timestamps: npt.NDArray[np.int64] | None
    # Number of rows of new files that were rejected, by reason.
    rejected_by_reason: Mapping[str, int] = field(default_factory=dict)
    # Set if these are the rows of a sample of users. Then `counts` has, of some features, the rows of each known id by
    # all users, `[known]`.
    sampled_from: SampledFrom | None = None
    counts: Mapping[str, npt.NDArray[np.int64]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.labels)

    def known(self, feature: str) -> npt.NDArray[np.bool_]:
        """Returns for each row whether train has its id, `[rows]`."""
        return self.codes[feature] < self.ids[feature].known

    def id_counts(self, feature: str) -> npt.NDArray[np.int64]:
        """Counts the rows of each known id, `[known]`: those of all users where that is known."""
        if feature in self.counts:
            return self.counts[feature]
        known = self.ids[feature].known
        return np.bincount(self.codes[feature], minlength=known)[:known]

    def identified(self, feature: str) -> npt.NDArray[np.bool_]:
        """Returns for each row whether its code is one id, `[rows]`; the code of an OOV bucket is many ids."""
        return np.ones(len(self), bool) if self.ids[feature].named else self.known(feature)

    def clusters(self, feature: str) -> npt.NDArray[np.int64]:
        """Numbers the ids, `[rows]`; a row whose token is lost counts as an id of its own."""
        codes = self.codes[feature].astype(np.int64)
        unknown = np.flatnonzero(~self.identified(feature))
        codes[unknown] = len(self.ids[feature].tokens) + np.arange(len(unknown))
        return codes

    def positive(self, positive_at: float) -> npt.NDArray[np.bool_]:
        """Returns for each row whether its label is at least `positive_at`, `[rows]`."""
        # The threshold is rounded to float32 like the labels, so that a label at the threshold compares equal.
        return self.labels >= np.float32(positive_at)


def token_array(text: bytes, dtype: str) -> pa.Array:
    """Parses a vocabulary file, one token a line; a token can be any text without a line end."""
    characters = np.frombuffer(text, np.uint8)
    ends = np.flatnonzero(characters == ord("\n"))
    lengths = np.diff(ends, prepend=-1) - 1
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    tokens = pa.LargeStringArray.from_buffers(
        len(ends), pa.py_buffer(offsets), pa.py_buffer(characters[characters != ord("\n")])
    )
    return tokens.cast(_TOKEN_TYPES[dtype])


def number_tokens(chunks: Sequence[pa.Array], dtype: str, known: pa.Array | None = None) -> tuple[Codes, Ids]:
    """Gives each token in the chunks a code; tokens that are not in `known` get codes after it, in order of occurrence.

    Without `known`, all tokens count as known.
    """
    encoded = pa.chunked_array(
        [chunk.cast(_TOKEN_TYPES[dtype]).dictionary_encode() for chunk in chunks],
        pa.dictionary(pa.int32(), _TOKEN_TYPES[dtype]),
    ).unify_dictionaries()
    indices = [chunk.indices.to_numpy() for chunk in encoded.chunks]
    codes = np.concatenate([np.zeros(0, np.int32), *indices]).astype(np.int32)
    distinct = encoded.chunk(0).dictionary if encoded.num_chunks else pa.array([], _TOKEN_TYPES[dtype])
    if known is None:
        return codes, Ids(distinct, len(distinct), named=True)
    position = pc.index_in(distinct, value_set=known)
    new = np.flatnonzero(position.is_null().to_numpy(zero_copy_only=False))
    code_of = pc.fill_null(position, 0).to_numpy().astype(np.int32)
    code_of[new] = len(known) + np.arange(len(new), dtype=np.int32)
    tokens = pa.concat_arrays([known, distinct.take(pa.array(new))])
    return code_of[codes], Ids(tokens, len(known), named=True)


def read_files(
    files: Sequence[InputFile],
    config: PipelineConfig,
    manifest: DatasetManifest,
    known: Mapping[str, pa.Array],
    progress: Progress,
    sampled: SampledRows | None = None,
) -> Rows:
    """Reads new files; parses rows and makes labels as the pipeline does.

    The window and `duplicates` of the configuration are not applied: new rows are outside the window, and all count.

    Args:
        files: the files, as they were matched.
        config: configuration of the dataset, with the format of these files under `input`.
        manifest: manifest of the dataset.
        known: tokens of train by feature; of a feature that is missing, all tokens are known.
        progress: called with the stage `read`.
        sampled: takes the rows of a sample of users; None: all.

    Raises:
        InputError: a file is not there, cannot be read, or lacks a column.
        DotbiasError: no row can be used.
    """
    config = config.model_copy(update={"window": type(config.window)()})
    batches: list[pa.RecordBatch] = []
    rejected: Counter[str] = Counter()
    done = 0
    for number, file in enumerate(files):
        for file_range in split_input((number, file), config):
            for parse in file_range.blocks(config):
                batch = make_interactions(number, parse, config)
                if batch is None:
                    continue
                batches.append(batch.rows if sampled is None else _sampled(batch.rows, sampled))
                rejected.update({reason: rows.count for reason, rows in batch.rejected.items()})
                done += batch.num_read
                progress("read", done, None, {})
    if not (sum(map(len, batches)) if sampled is None else sampled.sampled_from.rows):
        reason = (
            f"; {rejected.total():,} rows were rejected, mostly for: {rejected.most_common(1)[0][0]}"
            if rejected
            else ""
        )
        raise DotbiasError(f"{', '.join(file.path for file in files)}: there is no row to evaluate{reason}.")
    ids, codes = {}, {}
    for name, feature in manifest.features.items():
        chunks = [batch.column(name) for batch in batches]
        codes[name], ids[name] = number_tokens(chunks, feature.token_dtype, known.get(name))
    timestamp = config.timestamp_column
    return Rows(
        ids,
        codes,
        np.concatenate([batch.column(LABEL).to_numpy() for batch in batches]),
        np.concatenate([batch.column(timestamp).to_numpy() for batch in batches]) if timestamp else None,
        dict(rejected.most_common()),
        sampled_from=None if sampled is None else sampled.sampled_from,
    )


def _sampled(rows: pa.RecordBatch, sampled: SampledRows) -> pa.RecordBatch:
    taken = sampled.take(pa.Table.from_batches([rows])).combine_chunks()
    return next(iter(taken.to_batches()), rows.slice(0, 0))
