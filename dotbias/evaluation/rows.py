"""Rows to evaluate, as columns of numbers: 4 bytes a row and feature, whatever the tokens are.

The ids of a feature are numbered as the dataset numbers them: the tokens of its vocabulary first (of a hashed feature,
the distinct tokens of the train rows), in [0, known), then those that train did not know.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.config import PipelineConfig
from pipeline.input.interactions import LABEL
from pipeline.input.ranges import make_interactions, split_input
from pipeline.manifest import DatasetManifest, DotbiasError, InputFile, Progress

Codes = npt.NDArray[np.int32]

# 64-bit offsets: the tokens of a large vocabulary take more than 2 GiB.
_TOKEN_TYPES = {"int64": pa.int64(), "string": pa.large_string()}


@dataclass(frozen=True)
class Ids:
    """The ids of a feature. `tokens[code]` is the token, `[known]` of train and then others.

    `named` is False where the others stand for out-of-vocabulary buckets, of which the tokens are not known any more.
    """

    tokens: pa.Array
    known: int
    named: bool


@dataclass(frozen=True)
class Rows:
    """Columns of the same length: the codes of each feature, labels in [0, 1], and timestamps if there are any."""

    ids: Mapping[str, Ids]
    codes: Mapping[str, Codes]
    labels: npt.NDArray[np.float32]
    timestamps: npt.NDArray[np.int64] | None
    # Of new files, those that could not be used.
    rejected_by_reason: Mapping[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.labels)

    def known(self, feature: str) -> npt.NDArray[np.bool_]:
        """Whether train has the row's id, `[rows]`."""
        return self.codes[feature] < self.ids[feature].known

    def identified(self, feature: str) -> npt.NDArray[np.bool_]:
        """Whether equal codes are one id, `[rows]`; an out-of-vocabulary bucket is many."""
        return np.ones(len(self), bool) if self.ids[feature].named else self.known(feature)

    def clusters(self, feature: str) -> npt.NDArray[np.int64]:
        """A number for each id, `[rows]`; a row whose id is not known any more is one for itself."""
        codes = self.codes[feature].astype(np.int64)
        unknown = np.flatnonzero(~self.identified(feature))
        codes[unknown] = len(self.ids[feature].tokens) + np.arange(len(unknown))
        return codes

    def positive(self, positive_at: float) -> npt.NDArray[np.bool_]:
        # Labels are float32; a threshold that is not would part those that equal it.
        return self.labels >= np.float32(positive_at)


def token_array(text: bytes, dtype: str) -> pa.Array:
    """The tokens of a vocabulary file, one a line; a token can be any text without a line end."""
    characters = np.frombuffer(text, np.uint8)
    ends = np.flatnonzero(characters == ord("\n"))
    lengths = np.diff(ends, prepend=-1) - 1
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    tokens = pa.LargeStringArray.from_buffers(
        len(ends), pa.py_buffer(offsets), pa.py_buffer(characters[characters != ord("\n")])
    )
    return tokens.cast(_TOKEN_TYPES[dtype])


def number_tokens(chunks: Sequence[pa.Array], dtype: str, known: pa.Array | None = None) -> tuple[Codes, Ids]:
    """Codes of all tokens in the chunks; those that are not in `known` get numbers behind it, in order of occurrence.

    Without `known` all of them are.
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
) -> Rows:
    """New files, parsed as the job parses its input, with labels made in the same way.

    The window of the run and its treatment of duplicates are left out: new rows lie outside the one, and all count.

    Args:
        files: as they were matched.
        config: that of the dataset, with the format of these files under `input`.
        manifest: of the dataset.
        known: tokens of train by feature; of one that is missing, all are known.
        progress: of the stage `read`.

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
                batches.append(batch.rows)
                rejected.update(row.reason for row in batch.rejected)
                done += batch.num_read
                progress("read", done, None, {})
    if not sum(map(len, batches)):
        reason = f"; the {rejected.total():,} rows were rejected: {rejected.most_common(1)[0][0]}" if rejected else ""
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
    )
