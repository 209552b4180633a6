"""Describes a dataset directory: the contract between the pipeline and the trainer.

```
<dataset>/
  train/part-00000-of-00024.csv.gz     columns in the order of `DatasetManifest.columns`; no header, one row a line
  eval/part-00000-of-00003.csv.gz
  rejected/part-00000.csv              reason, source file, byte offset, the raw text
  vocabulary/userId.txt                one token a line, in index order
  vocabulary/userId.counts.txt         the tokens' counts in the train split, same order
  usual/genre.txt                      with several features a side, for each token of the vocabulary of the first one
                                       the token of this one in most of its rows, same order
  transform_fn/                        the SavedModel that TensorFlow Transform writes
  manifest.json                        written last: a directory that has it is complete
```

This module needs neither Beam nor TensorFlow, so both packages can import it.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Callable, Mapping
from importlib import metadata
from typing import IO, Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from pipeline import __version__

FORMAT_VERSION = 1
MANIFEST_NAME = "manifest.json"
REJECTED_DIRECTORY = "rejected"
TRANSFORM_FN_DIRECTORY = "transform_fn"
USUAL_DIRECTORY = "usual"
VOCABULARY_DIRECTORY = "vocabulary"
SPLITS = ("train", "eval")
_TOOLS = (
    "apache-beam",
    "numpy",
    "pyarrow",
    "tensorflow",
    "tensorflow-recommenders",
    "tensorflow-transform",
    "tf-keras",
)

Encoding = Literal["vocabulary", "hashing"]
Side = Literal["user", "item"]
DType = Literal["int64", "float32", "string"]

# Called with (stage, rows done, rows in all or None if unknown, numbers to show, such as {"epoch": 3, "loss": 0.61}).
Progress = Callable[[str, int, int | None, Mapping[str, float]], None]


class DotbiasError(Exception):
    """Tells the user what is wrong, where, and what to do. Shown as one line, without a traceback."""


class ManifestError(DotbiasError):
    """Says that a dataset directory has no manifest, or one that this version cannot read."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Column(_Frozen):
    """Describes a column of the shards: indices (vocabulary), tokens (hashing), a label in [0, 1], or a timestamp."""

    name: str
    dtype: DType
    role: Literal["feature", "label", "timestamp"]


class Label(_Frozen):
    """Says how labels were made. A row is positive if its label is at least `positive_at`.

    `column` is None for a log without labels, each row of which is positive.
    """

    column: str | None
    threshold: float | None
    scale: tuple[float, float] | None
    soft_weight: float | None
    positive_at: float


class Feature(_Frozen):
    """Describes an id column.

    With `vocabulary`, indices are in [0, vocabulary_size + num_oov_buckets), OOV buckets last; the tokens have at least
    `frequency_threshold` rows. `oov_rows` counts, by split, the rows whose token is not in the vocabulary, and
    `vocabulary_oov_rows` those of `Counts.vocabulary`. With `hashing` the shards hold tokens, the model chooses the
    number of bins, and all fields from `frequency_threshold` to `vocabulary_oov_rows` are None. `usual_path` has this
    feature's token in most rows of each token of the first feature of its side; it is None for that feature itself, and
    where that is hashed.
    """

    side: Side
    encoding: Encoding
    token_dtype: Literal["int64", "string"]
    frequency_threshold: int | None = None
    vocabulary_size: int | None = None
    num_oov_buckets: int | None = None
    vocabulary_path: str | None = None
    counts_path: str | None = None
    fingerprint: str | None = None
    oov_rows: dict[str, int] | None = None
    vocabulary_oov_rows: int | None = None
    usual_path: str | None = None

    @property
    def num_indices(self) -> int:
        """Returns the rows that an embedding table needs for a vocabulary-encoded feature."""
        if self.vocabulary_size is None or self.num_oov_buckets is None:
            raise ValueError("`num_indices` is known only for features with encoding `vocabulary`.")
        return self.vocabulary_size + self.num_oov_buckets


class Shard(_Frozen):
    """Describes a shard. `path` is relative to the dataset; `bytes` and `crc32` are of the compressed file."""

    path: str
    rows: int
    bytes: int
    crc32: int


class Split(_Frozen):
    """Describes a split. `label_mean` and `first_timestamp`, the least of its rows, are None without rows."""

    rows: int
    positive_rows: int
    label_mean: float | None
    shards: list[Shard]
    first_timestamp: int | None = None


class Counts(_Frozen):
    """Counts rows by outcome. Raises unless every row that was read has exactly one.

    `out_of_window` rows are outside `pipeline.window`; `duplicates` were replaced by a later row with the same tokens.
    `vocabulary` rows are those that the vocabularies count, if `pipeline.vocabulary_since` says that these are others
    than the train rows. All rejected rows are counted; of a reason that has very many, `rejected_not_kept` are not in
    `rejected/`.
    """

    read: int
    train: int
    eval: int
    rejected: int
    out_of_window: int = 0
    duplicates: int = 0
    vocabulary: int | None = None
    rejected_by_reason: dict[str, int]
    rejected_not_kept: dict[str, int] = {}

    @model_validator(mode="after")
    def _reconcile(self) -> Counts:
        outcomes = ("train", "eval", "rejected", "out_of_window", "duplicates")
        if self.read != sum(getattr(self, outcome) for outcome in outcomes):
            counts = " + ".join(f"{outcome} {getattr(self, outcome):,}" for outcome in outcomes)
            raise ValueError(f"rows do not reconcile: read {self.read:,} != {counts}")
        if self.rejected != sum(self.rejected_by_reason.values()):
            raise ValueError(f"rejected {self.rejected:,} rows, but by reason {self.rejected_by_reason}")
        return self


class InputFile(_Frozen):
    """Describes a file of the log before the job; `modified` is in seconds since the epoch.

    `in_window` is False if all rows of the file lie outside `pipeline.window`; such a file may grow.
    """

    path: str
    bytes: int
    modified: float
    in_window: bool = True


class DatasetManifest(_Frozen):
    """Holds everything that a reader of the dataset needs."""

    format_version: int = FORMAT_VERSION
    columns: list[Column]
    label: Label
    features: dict[str, Feature]
    splits: dict[str, Split]
    counts: Counts
    input: list[InputFile]
    config: dict[str, Any]
    versions: dict[str, str]

    def to_json(self) -> str:
        return self.model_dump_json(indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str, origin: str = MANIFEST_NAME) -> DatasetManifest:
        """Raises `ManifestError`, which names `origin`, if this version cannot read the text."""
        try:
            fields = json.loads(text)
        except ValueError as error:
            raise ManifestError(f"{origin} is not JSON ({error}); preprocess again into an empty directory.") from None
        version = fields.get("format_version") if isinstance(fields, dict) else None
        if version != FORMAT_VERSION:
            raise ManifestError(
                f"{origin}: `format_version` should be {FORMAT_VERSION}. Received: {version!r}. "
                "Preprocess again with this version of Dotbias."
            )
        try:
            return cls.model_validate(fields)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "the whole"
            raise ManifestError(f"{origin}: `{where}`: {first['msg']}; preprocess again.") from None


def join(directory: str, *parts: str) -> str:
    """Joins path parts with "/", for local paths and URLs alike.

    >>> join("gs://bucket/runs/", "2026-11-24", "dataset")
    'gs://bucket/runs/2026-11-24/dataset'
    """
    return "/".join([directory.rstrip("/"), *parts])


def _open_local(path: str) -> IO[bytes]:
    return open(path, "rb")


def read_manifest(dataset: str, open_file: Callable[[str], IO[Any]] = _open_local) -> DatasetManifest:
    """Reads `<dataset>/manifest.json`.

    Args:
        dataset: the dataset directory.
        open_file: opens a path for reading; pass the file system's own for URLs.

    Raises:
        ManifestError: there is no manifest (the dataset is not complete), or it cannot be read.
    """
    path = join(dataset, MANIFEST_NAME)
    try:
        with open_file(path) as file:
            data = file.read()
            text = data.decode() if isinstance(data, bytes) else data
    except Exception as error:
        # Each file system raises its own exception for a missing file.
        raise ManifestError(
            f"{dataset} has no readable {MANIFEST_NAME} ({type(error).__name__}), so it is not a complete dataset; "
            "run `--stage preprocess` first, or name a complete run with --run_id."
        ) from None
    return DatasetManifest.from_json(text, origin=path)


def shard_name(split: str, index: int, num_shards: int) -> str:
    """Returns the path of a shard, relative to the dataset.

    >>> shard_name("train", 3, 24)
    'train/part-00003-of-00024.csv.gz'
    """
    return f"{split}/part-{index:05d}-of-{num_shards:05d}.csv.gz"


def vocabulary_name(feature: str) -> str:
    """Returns the path of a feature's vocabulary, relative to the dataset."""
    return f"{VOCABULARY_DIRECTORY}/{feature}.txt"


def counts_name(feature: str) -> str:
    """Returns the path of the counts of a feature's vocabulary, relative to the dataset."""
    return f"{VOCABULARY_DIRECTORY}/{feature}.counts.txt"


def usual_name(feature: str) -> str:
    """Returns the path of the tokens that a feature has in most rows of each user or item, relative to the dataset."""
    return f"{USUAL_DIRECTORY}/{feature}.txt"


def fingerprint(value: Mapping[str, Any] | list[Any]) -> str:
    """Returns the SHA-256 of a JSON value in canonical form."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def tool_versions() -> dict[str, str]:
    """Return the versions of Python, Dotbias, and the packages that results depend on, if installed."""
    versions = {"python": platform.python_version(), "dotbias": __version__}
    for package in _TOOLS:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions
