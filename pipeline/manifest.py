"""The contract between the pipeline and the trainer: what a dataset directory holds.

```
<dataset>/
  train/part-00000-of-00024.csv.gz     columns in the order of `DatasetManifest.columns`; no header, one row a line
  eval/part-00000-of-00003.csv.gz
  rejected/part-00000.csv              reason, source file, byte offset, the raw text
  vocabulary/userId.txt                one token a line, in index order
  vocabulary/userId.counts.txt         the tokens' counts in the train split, same order
  transform_fn/                        the SavedModel that TensorFlow Transform writes
  manifest.json                        written last: its presence means that the dataset is complete
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
    """A failure that its message explains to the user: what is wrong, where, what to do. Shown without a traceback."""


class ManifestError(DotbiasError):
    """A dataset directory without a manifest, or with one that this version cannot read."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Column(_Part):
    """A column of the shards. A feature holds indices (vocabulary) or tokens (hashing); a label is in [0, 1]."""

    name: str
    dtype: DType
    role: Literal["feature", "label", "timestamp"]


class Label(_Part):
    """How labels were made; a row counts as positive where its label is at least `positive_at`."""

    column: str
    threshold: float | None
    scale: tuple[float, float] | None
    soft_weight: float | None
    positive_at: float


class Feature(_Part):
    """One id column. With `vocabulary`, indices are in [0, vocabulary_size + num_oov_buckets), out-of-vocabulary last.

    `oov_rows` counts, by split, the rows whose token is not in the vocabulary. With `hashing` the shards hold tokens,
    the number of bins belongs to the model, and all fields from `vocabulary_size` on are None.
    """

    side: Side
    encoding: Encoding
    token_dtype: Literal["int64", "string"]
    vocabulary_size: int | None = None
    num_oov_buckets: int | None = None
    vocabulary_path: str | None = None
    counts_path: str | None = None
    fingerprint: str | None = None
    oov_rows: dict[str, int] | None = None

    @property
    def num_indices(self) -> int:
        """Rows that an embedding table needs for a vocabulary-encoded feature."""
        if self.vocabulary_size is None or self.num_oov_buckets is None:
            raise ValueError("`num_indices` is known for features with encoding `vocabulary` only.")
        return self.vocabulary_size + self.num_oov_buckets


class Shard(_Part):
    """`path` is relative to the dataset; `bytes` and `crc32` are those of the compressed file."""

    path: str
    rows: int
    bytes: int
    crc32: int


class Split(_Part):
    """`label_mean` is None for a split without rows."""

    rows: int
    positive_rows: int
    label_mean: float | None
    shards: list[Shard]


class Counts(_Part):
    """Rows by their fate; the manifest refuses to exist unless all that were read have one.

    `out_of_window` are outside `pipeline.window`, `duplicates` gave way to a later row with the same tokens.
    """

    read: int
    train: int
    eval: int
    rejected: int
    out_of_window: int = 0
    duplicates: int = 0
    rejected_by_reason: dict[str, int]

    @model_validator(mode="after")
    def _reconcile(self) -> Counts:
        fates = ("train", "eval", "rejected", "out_of_window", "duplicates")
        if self.read != sum(getattr(self, fate) for fate in fates):
            counts = " + ".join(f"{fate} {getattr(self, fate):,}" for fate in fates)
            raise ValueError(f"rows do not reconcile: read {self.read:,} != {counts}")
        if self.rejected != sum(self.rejected_by_reason.values()):
            raise ValueError(f"rejected {self.rejected:,} rows, but by reason {self.rejected_by_reason}")
        return self


class InputFile(_Part):
    """A file of the log as it was before the job; `modified` in seconds since the epoch."""

    path: str
    bytes: int
    modified: float


class DatasetManifest(_Part):
    """Everything that a reader of the dataset needs, so that nothing is typed twice."""

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
    """Joins path parts with "/", for local paths and URLs alike."""
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
        # Each file system has its own exception for a missing file; none of them is a dataset.
        raise ManifestError(
            f"{dataset} has no readable {MANIFEST_NAME} ({type(error).__name__}), so it is not a complete dataset; "
            "run `--stage preprocess` first."
        ) from None
    return DatasetManifest.from_json(text, origin=path)


def shard_name(split: str, index: int, num_shards: int) -> str:
    """Path of a shard, relative to the dataset."""
    return f"{split}/part-{index:05d}-of-{num_shards:05d}.csv.gz"


def vocabulary_name(feature: str) -> str:
    """Path of a feature's vocabulary, relative to the dataset."""
    return f"{VOCABULARY_DIRECTORY}/{feature}.txt"


def counts_name(feature: str) -> str:
    """Path of the counts that belong to a feature's vocabulary, relative to the dataset."""
    return f"{VOCABULARY_DIRECTORY}/{feature}.counts.txt"


def fingerprint(value: Mapping[str, Any] | list[Any]) -> str:
    """SHA-256 of a JSON value in canonical form."""
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
