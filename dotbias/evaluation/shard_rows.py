"""Reads the shards of a dataset into `Rows`, a whole shard at a time, with Arrow; TensorFlow opens the files."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv
import tensorflow as tf

from dotbias.evaluation.rows import Codes, Ids, Rows, number_tokens, token_array
from dotbias.evaluation.user_sample import Counts, SampledRows, UserSample
from pipeline.manifest import Column, DotbiasError, Feature, Progress, Side
from trainer.data.dataset import Dataset
from trainer.data.files import read_bytes
from trainer.data.integrity import check_shards, find_fault


def first_feature(data: Dataset, side: Side) -> str:
    """Returns the feature that names users, or items: the first of the side in the configuration.

    Raises:
        DotbiasError: the side has no feature.
    """
    for name, feature in data.manifest.features.items():
        if feature.side == side:
            return name
    raise DotbiasError(f"{data.path} has no feature of side {side}; preprocess again with one.")


def read_train(data: Dataset, progress: Progress, sample: UserSample | None = None) -> Rows:
    """Reads the train rows; their ids are the known ones. With a sample, those of its users.

    Raises:
        DotbiasError: a shard or a vocabulary differs from what the manifest says.
    """
    features = data.manifest.features
    ids = {
        name: _vocabulary(data, name, feature) for name, feature in features.items() if feature.encoding != "hashing"
    }
    sampled = None if sample is None else _sampled(data, sample, ids)
    columns = _read_columns(data, "train", progress, sampled)
    codes, counts = {}, {}
    for name, feature in features.items():
        counted = sampled.counts.get(name) if sampled else None
        if feature.encoding == "hashing":
            # Tokens that only other users have are known too.
            known = None if counted is None else counted.values()
            codes[name], ids[name] = number_tokens(columns[name].chunks, feature.token_dtype, known)
            if counted is not None:
                counts[name] = counted.counts()
        else:
            codes[name] = _concatenated(columns[name])
            _check_range(data, "train", name, codes[name], len(ids[name].tokens))
            if counted is not None:
                counts[name] = _by_index(counted, ids[name].known)
    rows = _rows(data, ids, codes, columns)
    return rows if sampled is None else replace(rows, sampled_from=sampled.sampled_from, counts=counts)


def read_eval(data: Dataset, train: Rows, progress: Progress, sample: UserSample | None = None) -> Rows:
    """Reads the eval rows, with the codes of the train rows; raises the same as `read_train`."""
    sampled = None if sample is None else _sampled(data, sample, train.ids)
    columns = _read_columns(data, "eval", progress, sampled)
    ids, codes = {}, {}
    for name, feature in data.manifest.features.items():
        if feature.encoding == "hashing":
            known = train.ids[name].tokens
            codes[name], ids[name] = number_tokens(columns[name].chunks, feature.token_dtype, known)
        else:
            codes[name], ids[name] = _concatenated(columns[name]), train.ids[name]
            _check_range(data, "eval", name, codes[name], len(ids[name].tokens))
    rows = _rows(data, ids, codes, columns)
    return rows if sampled is None else replace(rows, sampled_from=sampled.sampled_from)


def _sampled(data: Dataset, sample: UserSample, ids: Mapping[str, Ids]) -> SampledRows:
    """Samples the users of shards; counts the items, and the tokens of hashed features, which say what train knows."""
    features, user = data.manifest.features, first_feature(data, "user")
    hashed = [name for name, feature in features.items() if feature.encoding == "hashing" and name != user]
    counted = dict.fromkeys([first_feature(data, "item"), *hashed])
    tokens = None if features[user].encoding == "hashing" else ids[user].tokens.slice(0, ids[user].known)
    return SampledRows(sample, user, tokens, list(counted))


def _by_index(counted: Counts, known: int) -> npt.NDArray[np.int64]:
    indices, found = counted.values().to_numpy(), counted.counts()
    counts = np.zeros(known, np.int64)
    counts[indices[indices < known]] = found[indices < known]
    return counts


def _rows(data: Dataset, ids: Mapping[str, Ids], codes: Mapping[str, Codes], columns: pa.Table) -> Rows:
    role = {column.role: column.name for column in data.manifest.columns}
    timestamps = columns[role["timestamp"]].to_numpy() if "timestamp" in role else None
    return Rows(ids, codes, columns[role["label"]].to_numpy(), timestamps)


def _read_columns(data: Dataset, split: str, progress: Progress, sampled: SampledRows | None) -> pa.Table:
    """Reads all columns of a split, of all users or of a sample; indices become int32."""
    check_shards(data, split, checksums=True)
    schema = pa.schema([(column.name, _arrow_type(column, data)) for column in data.manifest.columns])
    tables = []
    done = 0
    for shard in data.split(split).shards:
        try:
            table = pyarrow.csv.read_csv(
                pa.BufferReader(zlib.decompress(read_bytes(data.file(shard.path)), wbits=31)),
                read_options=pyarrow.csv.ReadOptions(column_names=schema.names),
                convert_options=pyarrow.csv.ConvertOptions(column_types=schema),
            )
        except (pa.ArrowInvalid, zlib.error) as error:
            raise DotbiasError(find_fault(data, split) or f"{data.file(shard.path)}: {error}") from error
        if len(table) != shard.rows:
            raise DotbiasError(
                f"{data.file(shard.path)} has {len(table):,} rows; the manifest says {shard.rows:,}. "
                "Preprocess again into an empty directory, or copy the dataset again."
            )
        tables.append(table if sampled is None else sampled.take(table))
        done += len(table)
        progress("read", done, data.split(split).rows, {})
    return pa.concat_tables([schema.empty_table(), *tables])


def _arrow_type(column: Column, data: Dataset) -> pa.DataType:
    if column.role == "label":
        return pa.float32()
    if column.role == "feature" and data.manifest.features[column.name].encoding == "vocabulary":
        return pa.int32()
    return pa.large_string() if column.dtype == "string" else pa.int64()


def _concatenated(column: pa.ChunkedArray) -> Codes:
    codes: Codes = column.to_numpy()
    return codes


def _check_range(data: Dataset, split: str, name: str, codes: Codes, limit: int) -> None:
    if len(codes) and not 0 <= codes.min() <= codes.max() < limit:
        raise DotbiasError(find_fault(data, split) or f"{data.path}: {split} has indices of {name!r} out of range.")


def _vocabulary(data: Dataset, name: str, feature: Feature) -> Ids:
    """Reads the tokens in index order, and appends one for each OOV bucket."""
    assert feature.vocabulary_path is not None and feature.num_oov_buckets is not None
    path = data.file(feature.vocabulary_path)
    tokens = token_array(read_bytes(path), feature.token_dtype)
    if len(tokens) != feature.vocabulary_size:
        raise DotbiasError(
            f"{path} has {len(tokens):,} tokens; the manifest says {feature.vocabulary_size:,}. "
            "Preprocess again into an empty directory."
        )
    buckets = bucket_tokens(tokens, feature.token_dtype, feature.num_oov_buckets)
    return Ids(pa.concat_arrays([tokens, buckets]), len(tokens), named=False)


def bucket_tokens(tokens: pa.Array, dtype: str, num_oov_buckets: int) -> pa.Array:
    """Finds for each OOV bucket, in order, a token that is not in `tokens` and is hashed into it.

    Shards have only the bucket of a row, and an export treats all tokens of a bucket alike.
    """
    found: dict[int, int | str] = {}
    number = 0
    while len(found) < num_oov_buckets:
        numbers = range(number, number + 4 * num_oov_buckets + 16)
        # The lowest integers, which are hardly ever ids.
        tried: list[int] | list[str] = (
            [n - 2**63 for n in numbers] if dtype == "int64" else [f"out of vocabulary {n}" for n in numbers]
        )
        taken = pa.array(tried, tokens.type)
        is_new = np.asarray(pa.compute.is_in(taken, value_set=tokens).to_pylist()) == 0
        buckets = tf.strings.to_hash_bucket_fast([str(token) for token in tried], num_oov_buckets).numpy()
        for token, bucket in zip(np.array(tried, object)[is_new], buckets[is_new], strict=True):
            found.setdefault(int(bucket), token)
        number = numbers.stop
    return pa.array([found[bucket] for bucket in range(num_oov_buckets)], tokens.type)
