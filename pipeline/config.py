"""What the Beam job can be told. Everything is checked here, in the launcher, before any worker starts."""

from __future__ import annotations

import re
import struct
from datetime import date, datetime, timezone
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from pipeline.manifest import DType, Encoding, Side


class _Options(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def _changed(options: BaseModel) -> set[str]:
    """The options that are not at their defaults; so that a configuration which was written out whole reads again."""
    fields = type(options).model_fields
    return {name for name, field in fields.items() if getattr(options, name) != field.default}


def _as_tuple(value: object) -> object:
    if isinstance(value, str):
        return (value,)
    return tuple(value) if isinstance(value, list) else value


class InputConfig(_Options):
    """Where the log is and how it is written."""

    # Globs or paths; the command line's --input stands in for it.
    patterns: Annotated[tuple[str, ...], BeforeValidator(_as_tuple)] = ()
    format: Literal["csv", "parquet", "bigquery"] = "csv"
    # CSV. Without a header, `columns` must list all columns of the files in their order.
    has_header: bool = True
    # CSV.
    delimiter: str = Field(",", min_length=1, max_length=1)
    # CSV. Quoted values may hold line ends. Then a file cannot be cut, and one worker reads it whole.
    newlines_in_values: bool = False
    # BigQuery. One of the two: `project.dataset.table`, or a query in standard SQL.
    table: str | None = None
    query: str | None = None
    # BigQuery. Where a query's result is kept while it is read: `project.dataset`, which must exist.
    temp_dataset: str | None = None
    # BigQuery. The Storage Read API; there is no other way here.
    method: Literal["DIRECT_READ"] = "DIRECT_READ"

    @field_validator("delimiter")
    @classmethod
    def _delimiter_cannot_be_data(cls, value: str) -> str:
        if value in '\r\n"' or value.isalnum() or not value.isascii():
            raise ValueError("should be one ASCII character that is neither a quote, a line end, a letter nor a digit")
        return value

    @model_validator(mode="after")
    def _options_fit_the_format(self) -> InputConfig:
        of_csv = {"has_header", "delimiter", "newlines_in_values"}
        of_bigquery = {"table", "query", "temp_dataset", "method"}
        for option in sorted(_changed(self)):
            if (option in of_csv and self.format != "csv") or (option in of_bigquery and self.format != "bigquery"):
                raise ValueError(f"`{option}` has no meaning with `format: {self.format}`")
        if self.format == "bigquery":
            if self.patterns:
                raise ValueError("`format: bigquery` reads a `table` or a `query`, not files")
            if (self.table is None) == (self.query is None):
                raise ValueError("`format: bigquery` needs either `table` or `query`")
            if (self.query is None) != (self.temp_dataset is None):
                raise ValueError("`temp_dataset` holds the result of a `query`: give both, or `table` alone")
        return self


def _float32(value: float) -> float:
    """Raises ValueError where float32 has no such number."""
    try:
        return float(struct.unpack("f", struct.pack("f", value))[0])
    except OverflowError:
        raise ValueError(f"{value} is too large for float32") from None


class LabelConfig(_Options):
    """How a label in [0, 1] is made from a column.

    Neither `threshold` nor `scale`: the column is the label. `threshold`: 1 where the value is at least that.
    `scale: [low, high]`: (value - low) / (high - low). Both: soft_weight * scaled + (1 - soft_weight) * thresholded.
    """

    column: str
    threshold: float | None = None
    scale: tuple[float, float] | None = None
    # .8 soft and .2 hard gave the best AUC on ml-latest-small; see benchmarks/.
    soft_weight: float | None = Field(None, ge=0, le=1)

    @model_validator(mode="after")
    def _consistent(self) -> LabelConfig:
        # Labels are made in float32.
        if self.scale is not None and not _float32(self.scale[0]) < _float32(self.scale[1]):
            raise ValueError(f"`scale` should be [low, high] with low < high. Received: {list(self.scale)}")
        if self.soft_weight is not None and (self.threshold is None or self.scale is None):
            raise ValueError("`soft_weight` blends two labels, so it needs both `threshold` and `scale`")
        if self.threshold is not None and self.scale is not None:
            if self.soft_weight is None:
                raise ValueError("with both `threshold` and `scale`, `soft_weight` should say how they blend, e.g. 0.8")
            if not self.scale[0] <= self.threshold <= self.scale[1]:
                raise ValueError(f"`threshold` should lie in `scale` {list(self.scale)}. Received: {self.threshold}")
        return self


class FeatureConfig(_Options):
    """One id column. The three vocabulary options have no effect with `hashing`, so they are refused there."""

    side: Side
    encoding: Encoding = "vocabulary"
    # Rarer tokens go to the OOV buckets: one interaction says little about a user or an item.
    frequency_threshold: int = Field(2, ge=1)
    top_k: int | None = Field(None, ge=1)
    num_oov_buckets: int = Field(1, ge=1)

    @model_validator(mode="after")
    def _no_vocabulary_options_with_hashing(self) -> FeatureConfig:
        given = _changed(self) & {"frequency_threshold", "top_k", "num_oov_buckets"}
        if self.encoding == "hashing" and given:
            raise ValueError(
                f"`{sorted(given)[0]}` belongs to `encoding: vocabulary`; with `hashing` give "
                "`trainer.hashing.<feature>.num_bins`"
            )
        return self


# A moment: a date or time (UTC unless it says otherwise), or a number in the unit of the timestamp column.
Moment = int | datetime | date

_UNITS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


def timestamp_of(moment: Moment, unit: str) -> int:
    """A moment as a value of a timestamp column with that unit since the epoch."""
    if isinstance(moment, int):
        return moment
    if not isinstance(moment, datetime):
        moment = datetime(moment.year, moment.month, moment.day)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=timezone.utc)
    since_epoch = moment - datetime(1970, 1, 1, tzinfo=timezone.utc)
    microseconds = (since_epoch.days * 86_400 + since_epoch.seconds) * 10**6 + since_epoch.microseconds
    return microseconds * _UNITS[unit] // 10**6


class WindowConfig(_Options):
    """The rows to take by their timestamp, so that a scheduled run names its data: since <= timestamp < until."""

    since: Moment | None = None
    until: Moment | None = None


class SplitConfig(_Options):
    """Which rows are kept out of training.

    `random`: each row by itself. `hash`: all rows of a token of `column` are on one side. `time`: the latest rows,
    either the last `eval_fraction` of them or those from `since` on; equal timestamps are on one side.
    """

    method: Literal["random", "hash", "time"] = "random"
    eval_fraction: float = Field(0.1, ge=0, lt=1)
    column: str | None = None
    since: Moment | None = None

    @model_validator(mode="after")
    def _options_fit_the_method(self) -> SplitConfig:
        if (self.method == "hash") != (self.column is not None):
            raise ValueError("`column` names the feature to hash: give it with `method: hash`, and only there")
        if self.since is not None and self.method != "time":
            raise ValueError(f"`since` has no meaning with `method: {self.method}`")
        if self.since is not None and "eval_fraction" in _changed(self):
            raise ValueError("give either `since` or `eval_fraction`")
        return self


class PipelineConfig(_Options):
    """The `pipeline` section of a configuration file."""

    input: InputConfig = InputConfig()
    # Name -> type of the columns that are read.
    columns: dict[str, DType] = Field(min_length=1)
    label: LabelConfig
    features: dict[str, FeatureConfig] = Field(min_length=1)
    # Kept in the shards as their last column.
    timestamp_column: str | None = None
    # What the timestamps count, since 1970-01-01 UTC.
    timestamp_unit: Literal["s", "ms", "us", "ns"] = "s"
    window: WindowConfig = WindowConfig()
    # Of rows with the same tokens: `keep` all, or the `last` by timestamp.
    duplicates: Literal["keep", "last"] = "keep"
    split: SplitConfig = SplitConfig()
    # About 5 MB compressed; a trainer holds a few decoded shards in memory.
    # No less than 1000, so that no shard is left empty by chance.
    rows_per_shard: int = Field(1_000_000, ge=1000)
    # Above it the run fails: a broken export should not become a model.
    max_rejected_fraction: float = Field(0.001, ge=0, le=1)
    seed: int = Field(42, ge=0, lt=2**63)

    @model_validator(mode="after")
    def _columns_exist_and_fit(self) -> PipelineConfig:
        def dtype_of(column: str, where: str) -> DType:
            if column not in self.columns:
                raise ValueError(f"`{where}` names column {column!r}, which is not in `columns` {list(self.columns)}")
            return self.columns[column]

        for name in self.features:
            if dtype_of(name, "features") == "float32":
                raise ValueError(f"feature {name!r} should be int64 or string. Received: float32")
            # It names files, and arguments of TensorFlow signatures, which take no other names as they are.
            if not re.fullmatch("[A-Za-z][A-Za-z0-9_]*", name):
                raise ValueError(f"feature {name!r} should be letters, digits and '_', a letter first")
        if dtype_of(self.label.column, "label.column") == "string":
            raise ValueError(f"label column {self.label.column!r} should be float32 or int64. Received: string")
        if self.timestamp_column is not None:
            dtype = dtype_of(self.timestamp_column, "timestamp_column")
            if dtype != "int64":
                raise ValueError(f"timestamp column {self.timestamp_column!r} should be int64. Received: {dtype}")
        if "label" in {*self.features, self.timestamp_column} - {self.label.column}:
            raise ValueError("a feature or timestamp column cannot be named 'label': the shards' label is named so")
        needs_timestamp = {
            "window": self.window != WindowConfig(),
            "split.method: time": self.split.method == "time",
            "duplicates: last": self.duplicates == "last",
        }
        for option, needed in needs_timestamp.items():
            if needed and self.timestamp_column is None:
                raise ValueError(f"`{option}` needs a `timestamp_column`")
        if self.split.column is not None and self.split.column not in self.features:
            raise ValueError(f"`split.column` should be one of {list(self.features)}. Received: {self.split.column!r}")
        used = self.needed_columns
        if len(set(used)) != len(used):
            raise ValueError(f"a column can be one of feature, label, timestamp. Received: {used}")
        return self

    @property
    def needed_columns(self) -> list[str]:
        """The columns that are read: features, label, timestamp."""
        return [*self.features, self.label.column, *([self.timestamp_column] if self.timestamp_column else [])]


class SampleConfig(_Options):
    """The optional `sample` section: data to generate when no input is named; see `pipeline.sample`."""

    rows: int = Field(ge=1)
    # Drawn from the same model and kept out of the log, to measure the trained model on.
    test_rows: int = Field(0, ge=0)
    users: int = Field(ge=1)
    items: int = Field(ge=1)
    token_type: Literal["int64", "string"] = "int64"
    # Of the model that the labels are drawn from; the last unit is the bias.
    embedding_dim: int = Field(8, ge=2)
    # Standard deviation of its dot products: with more of it, labels depend less on chance.
    signal: float = Field(1.5, ge=0)
    # Popularity of the id of rank r is proportional to (r + 1) ** -exponent.
    exponent: float = Field(0.8, ge=0)
    seed: int = Field(42, ge=0, lt=2**63)
