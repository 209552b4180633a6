"""Takes the rows of a random share of the users, where all rows do not fit memory, and counts those of all users."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.rows.token_hash import Hashes, keyed, token_hashes

# Distinct values that are counted before they are added to those before.
_PENDING = 1 << 20


@dataclass(frozen=True)
class UserSample:
    """Chooses each user with probability `share`, in (0, 1), by a keyed hash of the token, with all rows."""

    share: float
    seed: int

    def hashes(self, tokens: pa.Array) -> Hashes:
        """Hashes users, as int64 or strings, `[users]`."""
        tokens = tokens if pa.types.is_integer(tokens.type) else tokens.cast(pa.large_binary())
        return keyed(token_hashes(tokens), self.seed)

    def has(self, hashes: Hashes) -> npt.NDArray[np.bool_]:
        """Returns which users are in the sample, `[users]`."""
        return hashes < np.uint64(int(self.share * 2**64))


@dataclass(frozen=True)
class SampledFrom:
    """Counts the rows and users that a sample was taken from; a row whose user is lost counts as a user."""

    rows: int
    users: int


class Counts:
    """Counts values, batch by batch, in memory in proportion to the distinct ones."""

    def __init__(self) -> None:
        self._merged = pa.table({"value": pa.nulls(0), "count": pa.array([], pa.int64())})
        self._pending: list[pa.Table] = []

    def add(self, values: pa.Array | pa.ChunkedArray) -> None:
        """Counts further values, all of one type."""
        counted = values.value_counts()
        self._pending.append(pa.table({"value": counted.field("values"), "count": counted.field("counts")}))
        if sum(map(len, self._pending)) > max(_PENDING, len(self._merged)):
            self._merge()

    def _merge(self) -> None:
        tables = [table for table in (self._merged, *self._pending) if len(table)]
        if tables:
            added = pa.concat_tables(tables).group_by("value", use_threads=False).aggregate([("count", "sum")])
            self._merged = added.rename_columns({"count_sum": "count"})
        self._pending = []

    def values(self) -> pa.Array:
        """Returns the distinct values, in the order in which they came."""
        self._merge()
        return self._merged["value"].combine_chunks()

    def counts(self) -> npt.NDArray[np.int64]:
        """Returns how often each of `values` came."""
        self._merge()
        counts: npt.NDArray[np.int64] = self._merged["count"].to_numpy()
        return counts


class SampledRows:
    """Drops the rows of users that are not in a sample, batch by batch, and counts all rows and users.

    Args:
        sample: chooses the users.
        user: the column of the users.
        tokens: the token of each index, if the column has indices; higher indices are users whose tokens are lost.
        counted: further columns, whose values are counted.
    """

    def __init__(
        self, sample: UserSample, user: str, tokens: pa.Array | None = None, counted: Sequence[str] = ()
    ) -> None:
        self._sample = sample
        self._user = user
        self._of_index = None if tokens is None else sample.hashes(tokens)
        self._rows = 0
        self._lost_users = 0
        self._users = Counts()
        self.counts = {name: Counts() for name in counted}

    def take(self, batch: pa.Table) -> pa.Table:
        """Returns the rows of the sample."""
        hashes, known = self._hashes(batch[self._user])
        self._rows += len(batch)
        self._lost_users += int((~known).sum())
        self._users.add(pa.array(hashes[known]))
        for name, counts in self.counts.items():
            counts.add(batch[name])
        return batch.filter(pa.array(self._sample.has(hashes)))

    def _hashes(self, users: pa.ChunkedArray) -> tuple[Hashes, npt.NDArray[np.bool_]]:
        """Returns the hash of the user of each row, and whether the user is known, `[rows]`."""
        if self._of_index is None:
            return self._sample.hashes(users.combine_chunks()), np.ones(len(users), bool)
        # A user whose token is lost is chosen by the place of the row: each such row counts as a user of its own.
        hashes = self._sample.hashes(pa.array(np.arange(-self._rows - len(users), -self._rows)))
        indices = users.to_numpy()
        known = indices < len(self._of_index)
        hashes[known] = self._of_index[indices[known]]
        return hashes, known

    @property
    def sampled_from(self) -> SampledFrom:
        """Returns the numbers of all rows and users."""
        return SampledFrom(self._rows, self._lost_users + len(self._users.values()))
