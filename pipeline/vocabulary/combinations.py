"""Counts combinations: one token for each feature of a side.

They are counted like the tokens of a vocabulary, as text, separated by line breaks, which no token has.
"""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.rows.token_hash import TOKEN_TYPES
from pipeline.vocabulary.frequency import count_tokens

SEPARATOR = b"\n"


def combination_name(features: Sequence[str]) -> str:
    """Names the counts of the combinations of features; no feature has such a name.

    >>> combination_name(["movieId", "genre"])
    'movieId+genre'
    """
    return "+".join(features)


def count_combinations(rows: pa.RecordBatch, features: Sequence[str]) -> pa.RecordBatch:
    """Counts the combinations of tokens in rows; returns (token, count) with the combinations as large_binary."""
    texts = [rows[name].cast(pa.large_string()).cast(TOKEN_TYPES["string"]) for name in features]
    separator = pa.scalar(SEPARATOR, TOKEN_TYPES["string"])
    return count_tokens(pc.binary_join_element_wise(*texts, separator))


def first_tokens(combinations: pa.Array) -> pa.Array:
    """Returns the token of the first feature of each combination, as large_binary."""
    return pc.list_element(pc.split_pattern(combinations, SEPARATOR, max_splits=1), 0)
