from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline import __version__
from pipeline.manifest import (
    Column,
    Counts,
    DatasetManifest,
    Feature,
    InputFile,
    Label,
    ManifestError,
    Shard,
    Split,
    fingerprint,
    join,
    read_manifest,
    shard_name,
    tool_versions,
)

MANIFEST = DatasetManifest(
    columns=[
        Column(name="user", dtype="int64", role="feature"),
        Column(name="item", dtype="string", role="feature"),
        Column(name="label", dtype="float32", role="label"),
    ],
    label=Label(column="rating", threshold=4.0, scale=(0.5, 5.0), soft_weight=0.8, positive_at=0.7222222),
    features={
        "user": Feature(
            side="user",
            encoding="vocabulary",
            token_dtype="string",
            vocabulary_size=7,
            num_oov_buckets=2,
            vocabulary_path="vocabulary/user.txt",
            counts_path="vocabulary/user.counts.txt",
            fingerprint="f",
            oov_rows={"train": 1, "eval": 0},
        ),
        "item": Feature(side="item", encoding="hashing", token_dtype="string"),
    },
    splits={
        "train": Split(
            rows=5,
            positive_rows=2,
            label_mean=1 / 3,
            shards=[Shard(path=shard_name("train", 0, 1), rows=5, bytes=99, crc32=2**32 - 1)],
        ),
        "eval": Split(rows=0, positive_rows=0, label_mean=None, shards=[]),
    },
    counts=Counts(read=7, train=5, eval=0, rejected=2, rejected_by_reason={"bad": 2}),
    input=[InputFile(path="a.csv", bytes=100, modified=1764000000.1234567)],
    config={"columns": {"z": "int64", "a": "string"}, "top_k": None, "ü": [1, 2.5]},
    versions={"dotbias": "0.1.0"},
)


def test_round_trip(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(MANIFEST.to_json())
    assert read_manifest(str(tmp_path)) == MANIFEST
    assert read_manifest(str(tmp_path)).to_json() == MANIFEST.to_json()
    # A file system's own `open` may read bytes.
    assert read_manifest(f"{tmp_path}/", functools.partial(open, mode="rb")) == MANIFEST


def edited(edit: Callable[[dict[str, Any]], object]) -> str:
    fields = json.loads(MANIFEST.to_json())
    edit(fields)
    return json.dumps(fields)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "manifest.json is not JSON"),
        (MANIFEST.to_json()[:-10], "manifest.json is not JSON"),
        ("[]", "`format_version` should be 1. Received: None"),
        (edited(lambda fields: fields.update(format_version=2)), "`format_version` should be 1. Received: 2"),
        (edited(lambda fields: fields.pop("counts")), "`counts`: Field required"),
        (edited(lambda fields: fields.update(extra=1)), "`extra`: Extra inputs are not permitted"),
        (edited(lambda fields: fields["counts"].update(train=6)), "rows do not reconcile: read 7 != train 6"),
        (edited(lambda fields: fields["counts"].update(rejected_by_reason={})), "rejected 2 rows, but by reason"),
        (edited(lambda fields: fields["columns"][0].update(dtype="int8")), "`columns.0.dtype`: Input should be"),
    ],
)
def test_what_cannot_be_read(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(ManifestError) as error:
        read_manifest(str(tmp_path))
    assert message in str(error.value)
    assert str(tmp_path) in str(error.value)


def test_a_manifest_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_bytes(b"\xff\xfe")
    for open_file in (open, functools.partial(open, mode="rb")):
        with pytest.raises(ManifestError, match=r"has no readable manifest\.json \(UnicodeDecodeError\)"):
            read_manifest(str(tmp_path), open_file)


@pytest.mark.parametrize("dataset", ["nowhere", ""])
def test_no_manifest(tmp_path: Path, dataset: str) -> None:
    with pytest.raises(ManifestError, match="is not a complete dataset; run `--stage preprocess` first"):
        read_manifest(str(tmp_path / dataset))


def test_a_manifest_that_does_not_reconcile_cannot_be_made() -> None:
    with pytest.raises(ValueError, match="rows do not reconcile"):
        Counts(read=3, train=1, eval=1, rejected=0, rejected_by_reason={})


def test_number_of_indices() -> None:
    assert MANIFEST.features["user"].num_indices == 9
    with pytest.raises(ValueError, match="only for features with encoding `vocabulary`"):
        _ = MANIFEST.features["item"].num_indices


@pytest.mark.parametrize(
    ("parts", "path"),
    [
        (("a", "b"), "a/b"),
        (("a/", "b", "c"), "a/b/c"),
        (("gs://bucket", "b"), "gs://bucket/b"),
        (("gs://bucket/", "b"), "gs://bucket/b"),
        (("/", "b"), "/b"),
    ],
)
def test_join(parts: tuple[str, ...], path: str) -> None:
    assert join(*parts) == path


def test_fingerprint_is_of_the_value_not_its_order() -> None:
    assert fingerprint({"a": 1, "b": [1, 2]}) == fingerprint({"b": [1, 2], "a": 1})
    assert fingerprint([1, 2]) != fingerprint([2, 1])


def test_tool_versions() -> None:
    assert {"apache-beam", "tensorflow", "tensorflow-transform", "pyarrow", "numpy"} <= tool_versions().keys()


def test_our_version_is_that_of_the_package() -> None:
    pyproject = Path(__file__).resolve().parents[2] / "pyproject.toml"
    assert f'\nversion = "{__version__}"\n' in pyproject.read_text()
