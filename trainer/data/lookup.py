"""Looks up the rows of an embedding table for tokens, as the pipeline and the reader encode them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from trainer.data.dataset import Dataset

Tokens = npt.NDArray[Any]


class TokenLookup:
    """Finds the row of a feature's table for each token: int64 or string `[tokens]` -> int64 `[tokens]`.

    A token outside the vocabulary gets the row of its OOV bucket; a hashed token, that of its bin.

    Attributes:
        vocabulary: the lookup table, whose file becomes an asset of a SavedModel; None where all tokens are hashed.
    """

    def __init__(self, data: Dataset, name: str) -> None:
        feature = data.manifest.features[name]
        self.vocabulary: tf.lookup.StaticVocabularyTable | None = None
        self._num_buckets = data.table_rows[name]
        # TensorFlow makes no lookup table from an empty file; an empty vocabulary leaves the OOV buckets alone.
        if feature.encoding == "vocabulary" and feature.vocabulary_size:
            assert feature.vocabulary_path is not None
            key_dtype = tf.as_dtype(feature.token_dtype)
            initializer = tf.lookup.TextFileInitializer(
                data.file(feature.vocabulary_path),
                key_dtype=key_dtype,
                key_index=tf.lookup.TextFileIndex.WHOLE_LINE,
                value_dtype=tf.int64,
                value_index=tf.lookup.TextFileIndex.LINE_NUMBER,
            )
            # As `tft.apply_vocabulary` builds it.
            self.vocabulary = tf.lookup.StaticVocabularyTable(
                initializer, feature.num_oov_buckets, lookup_key_dtype=key_dtype
            )

    def __call__(self, tokens: tf.Tensor) -> tf.Tensor:
        if self.vocabulary is not None:
            return self.vocabulary.lookup(tokens)
        return tf.cast(hash_tokens(tokens, self._num_buckets), tf.int64)


def hash_tokens(tokens: tf.Tensor, num_bins: int) -> tf.Tensor:
    """Hash int64 or string tokens `[batch]` into bins in [0, num_bins), int32 `[batch]`.

    An integer has the bin of its decimal text. The bins are the same in `tf.data` and in the export, and stable over
    versions (FarmHash64 of the text). A TPU cannot hash, so the model takes bins.
    """
    text = tokens if tokens.dtype == tf.string else tf.strings.as_string(tokens)
    return tf.cast(tf.strings.to_hash_bucket_fast(text, num_bins), tf.int32)


def read_tokens(path: str, dtype: str) -> Tokens:
    """Read a vocabulary file: one token a line, `[tokens]`."""
    with tf.io.gfile.GFile(path, "rb") as file:
        lines = file.read().split(b"\n")[:-1]
    return np.array(lines).astype(np.int64) if dtype == "int64" else np.array(lines, object)
