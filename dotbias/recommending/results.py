"""Describes a directory of recommendations: `recommendations.json`, which is written last.

```
<run>/recommendations/
  lists/part-00000-of-00025.parquet   user, rank (from 1), item, score (logit); in the order of users and ranks
  recommendations.json                a directory that has it is complete
```
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from pipeline.manifest import DotbiasError, InputFile, join
from pipeline.storage.files import read_file
from pipeline.storage.trees import exists

FORMAT_VERSION = 1
RECOMMENDATIONS_NAME = "recommendations.json"
# Readers of Parquet take all files of a directory, so the description stands beside it.
LISTS_DIRECTORY = "lists"
Format = Literal["parquet", "csv"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Part(_Frozen):
    """Describes a file. `path` is relative to the directory; `short` counts users with fewer than k items."""

    path: str
    users: int
    short: int
    rows: int
    bytes: int


class Excluded(_Frozen):
    """Counts the rows with pairs to leave out, and those of them whose user and item occur in these lists."""

    rows: int = 0
    used: int = 0


class Recommendations(_Frozen):
    """Holds what was asked and how much came out; the counts are those of all parts.

    `splits` are those whose rows, counted in `seen`, are left out; `exclude` counts the rows of files that were named.
    """

    format_version: int = FORMAT_VERSION
    fingerprint: str
    export: str
    k: int
    format: Format
    splits: list[str]
    table: str | None
    users: int
    items: int
    unknown_users: int
    unknown_items: int
    rows: int
    short: int
    seen: Excluded
    exclude: Excluded
    files: dict[str, list[InputFile]]
    parts: list[Part]
    versions: dict[str, str]

    def check(self, seen_rows: int) -> None:
        """Raise `DotbiasError` unless every user has a list and every row of the splits was read."""
        users, short, rows = (sum(getattr(part, name) for part in self.parts) for name in ("users", "short", "rows"))
        if (users, short, rows) != (self.users, self.short, self.rows) or self.seen.rows != seen_rows:
            raise DotbiasError(
                f"Recommendations do not reconcile: {users:,} lists with {rows:,} rows for {self.users:,} users, and "
                f"{self.seen.rows:,} {' and '.join(self.splits)} rows read of {seen_rows:,}. Nothing is published; "
                "rerun."
            )
        if not self.k * (users - short) <= rows <= self.k * users:
            raise DotbiasError(
                f"Recommendations do not reconcile: {users - short:,} users should have {self.k} items each, and all "
                f"{users:,} users have {rows:,}. Nothing is published; rerun."
            )


def read_recommendations(directory: str) -> Recommendations | None:
    """Read the description of complete recommendations; None if there are none that this version can read."""
    path = join(directory, RECOMMENDATIONS_NAME)
    if not exists(path):
        return None
    try:
        return Recommendations.model_validate_json(read_file(path))
    except ValidationError:
        return None
