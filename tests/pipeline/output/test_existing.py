from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import PipelineConfig
from pipeline.manifest import (
    Counts,
    DatasetManifest,
    DotbiasError,
    InputFile,
    Label,
    ManifestError,
    Split,
    tool_versions,
)
from pipeline.output.existing import existing_manifest

CONFIG = PipelineConfig.model_validate(
    {
        "columns": {"user": "int64", "item": "string", "rating": "float32"},
        "label": {"column": "rating", "scale": [0.5, 5.0]},
        "features": {"user": {"side": "user"}, "item": {"side": "item", "top_k": 10}},
    }
)
FILES = [InputFile(path=name, bytes=100, modified=1764000000.123456) for name in ("a.csv", "b.csv")]


@pytest.fixture
def dataset(tmp_path: Path) -> str:
    """Writes the manifest of a complete dataset."""
    empty = Split(rows=0, positive_rows=0, label_mean=None, shards=[])
    manifest = DatasetManifest(
        columns=[],
        label=Label(column="rating", threshold=None, scale=(0.5, 5.0), soft_weight=None, positive_at=0.5),
        features={},
        splits={"train": empty, "eval": empty},
        counts=Counts(read=0, train=0, eval=0, rejected=0, rejected_by_reason={}),
        input=FILES,
        config=CONFIG.model_dump(mode="json"),
        versions=tool_versions(),
    )
    (tmp_path / "manifest.json").write_text(manifest.to_json())
    return str(tmp_path)


def changed(**fields: Any) -> PipelineConfig:
    """Returns `CONFIG` with other fields, validated."""
    return PipelineConfig.model_validate({**CONFIG.model_dump(), **fields})


@pytest.mark.parametrize(
    "config",
    [
        CONFIG,
        # The files are compared, however they were named.
        changed(input={"patterns": ["*.csv"]}),
        # A default may be written explicitly.
        changed(seed=42),
    ],
)
def test_the_same_dataset(dataset: str, config: PipelineConfig) -> None:
    manifest = existing_manifest(dataset, config, FILES)
    assert manifest is not None
    assert manifest.input == FILES


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (changed(seed=1), "was made with `pipeline.seed` 42, not 1. Choose another --run_id, or delete the directory."),
        (changed(label={"column": "rating", "scale": [1, 5]}), "`pipeline.label.scale` [0.5, 5.0], not [1.0, 5.0]"),
        (changed(timestamp_column=None, split={"eval_fraction": 0.2}), "`pipeline.split.eval_fraction` 0.1, not 0.2"),
        (changed(input={"has_header": False}), "`pipeline.input.has_header` true, not false"),
        (changed(features={"user": {"side": "user"}}), '`pipeline.features` ["user", "item"], not ["user"]'),
        (
            changed(features={"user": {"side": "user"}, "item": {"side": "item", "encoding": "hashing"}}),
            '`pipeline.features.item.encoding` "vocabulary", not "hashing"',
        ),
        # The order of columns matters without a header, and the order of features is that of the shards.
        (
            changed(columns=dict(reversed(CONFIG.columns.items()))),
            '`pipeline.columns` ["user", "item", "rating"], not ["rating", "item", "user"]',
        ),
        (
            changed(features=dict(reversed(CONFIG.model_dump()["features"].items()))),
            '`pipeline.features` ["user", "item"], not ["item", "user"]',
        ),
    ],
)
def test_another_configuration(dataset: str, config: PipelineConfig, message: str) -> None:
    with pytest.raises(DotbiasError) as error:
        existing_manifest(dataset, config, FILES)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            [FILES[0], FILES[1].model_copy(update={"bytes": 101})],
            "another input: b.csv (100 bytes, modified 2025-11-24 ",
        ),
        ([FILES[0], FILES[1].model_copy(update={"modified": 1764000000.2})], "b.csv (100 bytes"),
        ([FILES[0]], "was made from 2 files, but the input has 1 now"),
        ([*FILES, FILES[0].model_copy(update={"path": "c.csv"})], "was made from 2 files, but the input has 3 now"),
    ],
)
def test_another_input(dataset: str, files: list[InputFile], message: str) -> None:
    with pytest.raises(DotbiasError) as error:
        existing_manifest(dataset, CONFIG, files)
    assert message in str(error.value)


def test_no_dataset(tmp_path: Path) -> None:
    assert existing_manifest(str(tmp_path), CONFIG, FILES) is None
    assert existing_manifest(str(tmp_path / "nowhere"), CONFIG, FILES) is None


@pytest.mark.parametrize(
    "damage", [lambda text: text[:100], lambda text: text.replace('"format_version": 1', '"format_version": 9')]
)
def test_a_manifest_that_is_there_but_unreadable_is_not_written_over(
    dataset: str, damage: Callable[[str], str]
) -> None:
    path = Path(dataset) / "manifest.json"
    path.write_text(damage(path.read_text()))
    with pytest.raises(ManifestError):
        existing_manifest(dataset, CONFIG, FILES)
