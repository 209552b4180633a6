"""Defines and checks the options of the Beam job, in the launcher, before any worker starts."""

from __future__ import annotations

import re
import struct
from datetime import date, datetime, timezone
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from pipeline.manifest import DType, Encoding, Side

# Names of columns that batches have besides those of the log; a feature begins with a letter, so it cannot clash.
RESERVED_NAMES = ("_label", "_file", "_offset", "_shard")


class _Options(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def _changed(options: BaseModel) -> set[str]:
    """Names the options that differ from their defaults, so a configuration saved with all keys loads again."""
    fields = type(options).model_fields
    return {name for name, field in fields.items() if getattr(options, name) != field.default}


def _as_tuple(value: object) -> object:
    if isinstance(value, str):
        return (value,)
    return tuple(value) if isinstance(value, list) else value


class InputConfig(_Options):
    """Says where the log is and in which format."""

    # Globs or paths; --input replaces them.
    patterns: Annotated[tuple[str, ...], BeforeValidator(_as_tuple)] = ()
    format: Literal["csv", "parquet", "bigquery"] = "csv"
    # CSV. Without a header, `columns` must list all columns of the files in their order.
    has_header: bool = True
    # CSV.
    delimiter: str = Field(",", min_length=1, max_length=1)
    # CSV. Quoted values may contain line ends; one worker then reads a whole file.
    newlines_in_values: bool = False
    # BigQuery. One of the two: `project.dataset.table`, or a query in standard SQL.
    table: str | None = None
    query: str | None = None
    # BigQuery. Keeps the result of a query while it is read: `project.dataset`, which must exist.
    temp_dataset: str | None = None

    @field_validator("delimiter")
    @classmethod
    def _delimiter_cannot_be_data(cls, value: str) -> str:
        if value in '\r\n"' or value.isalnum() or not value.isascii():
            raise ValueError("should be one ASCII character that is neither a quote, a line end, a letter nor a digit")
        return value

    @model_validator(mode="after")
    def _options_fit_the_format(self) -> InputConfig:
        csv_options = {"has_header", "delimiter", "newlines_in_values"}
        bigquery_options = {"table", "query", "temp_dataset"}
        for option in sorted(_changed(self)):
            if (option in csv_options and self.format != "csv") or (
                option in bigquery_options and self.format != "bigquery"
            ):
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
    """Rounds to float32; raises ValueError if the value is too large for it."""
    try:
        return float(struct.unpack("f", struct.pack("f", value))[0])
    except OverflowError:
        raise ValueError(f"{value} is too large for float32") from None


class LabelConfig(_Options):
    """Says how a label in [0, 1] is made from a column. `label: implicit` is short for `column: null`.

    Without `column` the log has no labels: each row is positive, with label 1.
    Without `threshold` and `scale` the column is the label. `threshold`: 1 if the value is at least this, else 0.
    `scale: [low, high]`: (value - low) / (high - low). Both: soft_weight * scaled + (1 - soft_weight) * thresholded.
    """

    column: str | None
    threshold: float | None = None
    scale: tuple[float, float] | None = None
    # .8 soft and .2 hard gave the best AUC on ml-latest-small; see benchmarks/.
    soft_weight: float | None = Field(None, ge=0, le=1)

    @model_validator(mode="before")
    @classmethod
    def _implicit(cls, value: object) -> object:
        if isinstance(value, dict) and isinstance(value.get("scale"), list):
            # Pydantic's strict mode refuses a list for a tuple once a validator such as this one has run.
            return {**value, "scale": tuple(value["scale"])}
        if not isinstance(value, str):
            return value
        if value != "implicit":
            raise ValueError(
                f"should be `implicit`, where each row is positive, or have a `column`. Received: {value!r}"
            )
        return {"column": None}

    @model_validator(mode="after")
    def _consistent(self) -> LabelConfig:
        if self.column is None and (given := sorted(_changed(self) - {"column"})):
            raise ValueError(f"`{given[0]}` needs a `column`: without one, each row is positive")
        # Labels are computed in float32.
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
    """Describes one id column. `hashing` refuses the options of a vocabulary, since they have no effect there."""

    side: Side
    encoding: Encoding = "vocabulary"
    # Rarer tokens go to the OOV buckets. None: 1 where tokens that occur once are many, else 2, see `threshold_of`.
    frequency_threshold: int | None = Field(None, ge=1)
    top_k: int | None = Field(None, ge=1)
    num_oov_buckets: int = Field(1, ge=1)
    # Each worker holds a `table`; `join` shares the vocabulary among them, for one that no worker can hold.
    lookup: Literal["table", "join"] = "table"
    # An empty value is a `token` of its own, or a reason to `reject` the row. None: `reject` for the first feature of
    # its side, which is the id itself, `token` for the others.
    missing: Literal["token", "reject"] | None = None

    @model_validator(mode="after")
    def _no_vocabulary_options_with_hashing(self) -> FeatureConfig:
        given = _changed(self) & {"frequency_threshold", "top_k", "num_oov_buckets", "lookup"}
        if self.encoding == "hashing" and given:
            raise ValueError(
                f"`{sorted(given)[0]}` belongs to `encoding: vocabulary`; with `hashing` give "
                "`trainer.hashing.<feature>.num_bins`"
            )
        return self


# A date or time (UTC unless it has an offset), or a number in the unit of the timestamp column.
Moment = int | datetime | date

_UNITS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


def stored_unit(unit: str) -> str:
    """Returns the unit of the timestamps in batches and shards: microseconds for text of ISO 8601."""
    return "us" if unit == "iso" else unit


def timestamp_of(moment: Moment, unit: str) -> int:
    """Converts a moment to a value of a timestamp column in `unit` since the epoch.

    >>> timestamp_of(date(2026, 11, 24), "s")
    1795478400
    >>> timestamp_of(datetime(2026, 11, 24, 12, 30), "ms")
    1795523400000
    >>> timestamp_of(1795478400, "s")
    1795478400
    """
    if isinstance(moment, int):
        return moment
    if not isinstance(moment, datetime):
        moment = datetime(moment.year, moment.month, moment.day)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=timezone.utc)
    since_epoch = moment - datetime(1970, 1, 1, tzinfo=timezone.utc)
    microseconds = (since_epoch.days * 86_400 + since_epoch.seconds) * 10**6 + since_epoch.microseconds
    return microseconds * _UNITS[stored_unit(unit)] // 10**6


def day_length(unit: str) -> int:
    """Returns how long a day is in a timestamp column of `unit`."""
    return 86_400 * _UNITS[stored_unit(unit)]


class WindowConfig(_Options):
    """Selects rows by their timestamp, since <= timestamp < until, so a scheduled run always reads the same data."""

    since: Moment | None = None
    until: Moment | None = None


class SplitConfig(_Options):
    """Selects the eval rows, which are kept out of training.

    `random`: rows by a hash of tokens and timestamp, so equal rows stay together. `hash`: all rows of a token of
    `column` together. `time`: the latest rows, either the last `eval_fraction` of them or those from `since` on; equal
    timestamps stay together.
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
    """Defines the `pipeline` section of a configuration file."""

    input: InputConfig = InputConfig()
    # Name and type of the columns to read.
    columns: dict[str, DType] = Field(min_length=1)
    label: LabelConfig
    features: dict[str, FeatureConfig] = Field(min_length=1)
    # The last column of the shards.
    timestamp_column: str | None = None
    # Unit of the timestamps since 1970-01-01 UTC; `iso`: text such as 2026-11-01T12:00:00Z.
    timestamp_unit: Literal["s", "ms", "us", "ns", "iso"] = "s"
    window: WindowConfig = WindowConfig()
    # `keep` all rows with the same tokens, or only the `last` by timestamp; by place in a log without labels and times.
    duplicates: Literal["keep", "last"] = "keep"
    split: SplitConfig = SplitConfig()
    # Directory that keeps the counts of each input file, so that later runs need not count it again.
    counts_cache: str | None = None
    # Vocabularies count the rows since this moment. None: the train rows.
    vocabulary_since: Moment | None = None
    # About 5 MB compressed; a trainer holds a few decoded shards in memory.
    # Fewer than 1000 could leave a shard empty by chance.
    rows_per_shard: int = Field(1_000_000, ge=1000)
    # The run fails above it, so a broken log does not become a model.
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
            # The name becomes a file name and an argument of a TensorFlow signature, which allow no other characters.
            if not re.fullmatch("[A-Za-z][A-Za-z0-9_]*", name):
                raise ValueError(
                    f"feature {name!r} should be letters, digits and '_', a letter first; rename the column in the log"
                )
        if self.label.column is not None and dtype_of(self.label.column, "label.column") == "string":
            raise ValueError(f"label column {self.label.column!r} should be float32 or int64. Received: string")
        if self.timestamp_column is not None:
            self._check_timestamp(dtype_of(self.timestamp_column, "timestamp_column"))
        needs_timestamp = {
            "window": self.window != WindowConfig(),
            "split.method: time": self.split.method == "time",
            # Without labels, rows with the same tokens are the same.
            "duplicates: last": self.duplicates == "last" and self.label.column is not None,
        }
        for option, needed in needs_timestamp.items():
            if needed and self.timestamp_column is None:
                raise ValueError(f"`{option}` needs a `timestamp_column`")
        if self.split.column is not None and self.split.column not in self.features:
            raise ValueError(f"`split.column` should be one of {list(self.features)}. Received: {self.split.column!r}")
        if self.vocabulary_since is not None:
            self._check_vocabulary_since(self.vocabulary_since)
        used = self.needed_columns
        if len(set(used)) != len(used):
            raise ValueError(f"a column can be one of feature, label, timestamp. Received: {used}")
        return self

    def _check_timestamp(self, dtype: DType) -> None:
        column, unit = self.timestamp_column, self.timestamp_unit
        if column in RESERVED_NAMES:
            raise ValueError(f"a timestamp column cannot be named {column!r}, which is used internally; rename it")
        if dtype == "string" and unit != "iso":
            raise ValueError(
                f"timestamp column {column!r} is declared string: set `timestamp_unit: iso` if it has text such as "
                "2026-11-01T12:00:00Z, or declare it int64 if it has numbers"
            )
        if dtype == "int64" and unit == "iso":
            raise ValueError(
                f"`timestamp_unit: iso` is for text: declare timestamp column {column!r} string in `columns`"
            )
        if dtype == "float32":
            raise ValueError(
                f"timestamp column {column!r} should be int64, or string with `timestamp_unit: iso`. Received: float32"
            )
        moments = {
            "window.since": self.window.since,
            "window.until": self.window.until,
            "split.since": self.split.since,
            "vocabulary_since": self.vocabulary_since,
        }
        for option, moment in moments.items():
            if unit == "iso" and isinstance(moment, int):
                raise ValueError(f"`{option}` should be a date or time with `timestamp_unit: iso`. Received: {moment}")

    def _check_vocabulary_since(self, moment: Moment) -> None:
        if self.counts_cache is None:
            raise ValueError("`vocabulary_since` reads the counts of older rows: it needs a `counts_cache`")
        if reason := self.why_not_counted_by_file():
            raise ValueError(f"`vocabulary_since` needs counts by file, which are not kept: {reason}")
        since, unit = self.window.since, self.timestamp_unit
        if since is None or timestamp_of(moment, unit) > timestamp_of(since, unit):
            raise ValueError(f"`vocabulary_since` should not be after `window.since` {since}. Received: {moment}")

    def why_not_counted_by_file(self) -> str:
        """Returns why `counts_cache` cannot be used; empty if it can.

        Counts are kept by file and day, so whole files and whole days (UTC) have to be in or out.
        """
        if self.input.format == "bigquery":
            return "BigQuery has no files"
        if self.duplicates != "keep":
            return f"`duplicates: {self.duplicates}` drops rows of one file for those of another"
        if self.split.method != "time" or self.split.since is None:
            return "the split is not `method: time` with `since`"
        moments = {
            "window.since": self.window.since,
            "window.until": self.window.until,
            "split.since": self.split.since,
            "vocabulary_since": self.vocabulary_since,
        }
        for option, moment in moments.items():
            if moment is not None and timestamp_of(moment, self.timestamp_unit) % day_length(self.timestamp_unit):
                return f"`{option}` {moment} is not midnight (UTC)"
        return ""

    @property
    def label_name(self) -> str:
        """Returns the name of the label in the manifest: `label`, or `_label` if another column is called `label`."""
        return "_label" if "label" in {*self.features, self.timestamp_column} else "label"

    def missing_is_a_token(self, feature: str) -> bool:
        """Returns whether an empty value of a feature is a token of its own; if not, its row is rejected."""
        options = self.features[feature]
        first = next(name for name, other in self.features.items() if other.side == options.side)
        return feature != first if options.missing is None else options.missing == "token"

    def threshold_of(self, feature: str) -> int | None:
        """Returns the frequency threshold of a feature, None if it follows from the counts of the tokens.

        Without labels it is 2: the objective that such logs are for compares with all items of the vocabulary.
        """
        given = self.features[feature].frequency_threshold
        return 2 if given is None and self.label.column is None else given

    @property
    def combined_features(self) -> list[list[str]]:
        """Lists the features of each side that has several, if its first one has a vocabulary."""
        sides = [[name for name, feature in self.features.items() if feature.side == side] for side in ("user", "item")]
        return [names for names in sides if len(names) > 1 and self.features[names[0]].encoding == "vocabulary"]

    @property
    def joined_features(self) -> list[str]:
        """Lists the features whose tokens get their indices by a join."""
        return [name for name, feature in self.features.items() if feature.lookup == "join"]

    @property
    def needed_columns(self) -> list[str]:
        """Lists the columns to read: features, label, timestamp."""
        others = (self.label.column, self.timestamp_column)
        return [*self.features, *(column for column in others if column is not None)]


class SampleConfig(_Options):
    """Defines the optional `sample` section: data to generate when no input is named; see `pipeline.sample`."""

    rows: int = Field(ge=1)
    # Rows of the same model outside the log, to measure the trained model on.
    test_rows: int = Field(0, ge=0)
    users: int = Field(ge=1)
    items: int = Field(ge=1)
    token_type: Literal["int64", "string"] = "int64"
    # Dimension of the model that labels are drawn from; the last unit is the bias.
    embedding_dim: int = Field(8, ge=2)
    # Standard deviation of its dot products. Labels depend less on chance with a larger one.
    signal: float = Field(1.5, ge=0)
    # The popularity of the id of rank r is proportional to (r + 1) ** -exponent.
    exponent: float = Field(0.8, ge=0)
    seed: int = Field(42, ge=0, lt=2**63)
