"""Makes rows without files, and a run directory with a dataset, a model and new files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from dotbias.evaluation.rows import Ids, Rows
from pipeline.manifest import MANIFEST_NAME, DatasetManifest
from tests.trainer.conftest import SIDES, random_rows
from tests.trainer.datasets import write_dataset
from tests.trainer.output.test_export import trained_like
from trainer.config import HashingConfig, TrainerConfig
from trainer.data.dataset import Dataset
from trainer.output.export import export_model
from trainer.output.result import write_result

CONFIG = {
    "columns": {"userId": "int64", "movieId": "int64", "rating": "float32"},
    "label": {"column": "rating"},
    "features": {"userId": {"side": "user"}, "movieId": {"side": "item"}},
}
# With ids that are too rare for a vocabulary, and in eval some that train does not have.
TRAIN = random_rows(600, 1, items=40)
EVAL = random_rows(200, 2, users=44, items=44)


def no_progress(*_: object) -> None:
    pass


def make_rows(
    codes: Mapping[str, Sequence[int]],
    labels: Sequence[float] | None = None,
    timestamps: Sequence[int] | None = None,
    known: Mapping[str, int] | None = None,
    named: bool = True,
) -> Rows:
    """Makes rows whose tokens are "u0", "u1", ... for a feature "u"."""
    some = next(iter(codes.values()))
    ids = {}
    for name, values in codes.items():
        of_train = (known or {}).get(name, max(values) + 1)
        tokens = pa.array([f"{name}{code}" for code in range(max([*values, of_train - 1]) + 1)], pa.large_string())
        ids[name] = Ids(tokens, of_train, named)
    return Rows(
        ids,
        {name: np.array(values, np.int32) for name, values in codes.items()},
        np.array(labels if labels is not None else [0.0] * len(some), np.float32),
        None if timestamps is None else np.array(timestamps, np.int64),
    )


def make_run(directory: Path, *, hashed: Sequence[str] = (), refit: Any = None, **options: Any) -> Dataset:
    """Makes a run with random models: 600 train rows, 200 eval rows, and an export before the refit that differs."""
    config = run_config(hashed)
    manifest = write_dataset(
        directory / "dataset",
        TRAIN,
        EVAL,
        SIDES,
        hashed=list(hashed),
        **{"frequency_threshold": 12, "num_oov_buckets": 3, "positive_at": 0.5} | options,
    )
    with_config(directory, manifest, CONFIG)
    data = Dataset.open(str(directory / "dataset"), config)
    model = trained_like(data, config)
    export_model(model, data, str(directory / "model" / "export"))
    if refit is not None:
        model.calibration_offset.assign(0.5)
        export_model(model, data, str(directory / "model" / "export_before_refit"))
    write_result(str(directory / "model"), {"dataset": {"fingerprint": data.fingerprint}, "train": {"refit": refit}})
    return data


def run_config(hashed: Sequence[str]) -> TrainerConfig:
    hashing = {name: HashingConfig(num_bins=50) for name in hashed}
    return TrainerConfig(embedding_dim=4, l2=0.0, hashing=hashing)


def with_config(directory: Path, manifest: DatasetManifest, config: Mapping[str, Any]) -> None:
    changed = manifest.model_copy(update={"config": dict(config)})
    (directory / "dataset" / MANIFEST_NAME).write_text(changed.to_json())


@pytest.fixture
def run(tmp_path: Path) -> Path:
    make_run(tmp_path)
    return tmp_path
