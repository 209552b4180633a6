from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline.manifest import DotbiasError, Split
from tests.trainer.conftest import SIDES, random_rows, small_config
from tests.trainer.datasets import write_dataset
from trainer.config import TrainerConfig
from trainer.data.dataset import Dataset
from trainer.output.result import check_same_training, defined_metrics, read_result, training_fingerprint, write_result
from trainer.train import train


def result_of(data: Dataset, config: dict[str, Any]) -> dict[str, Any]:
    return {"config": config, "dataset": {"fingerprint": data.fingerprint}}


def test_a_result_is_read_back(tmp_path: Path) -> None:
    assert read_result(str(tmp_path)) is None
    write_result(str(tmp_path), {"eval": {"auc": 0.75}})
    assert read_result(str(tmp_path)) == {"eval": {"auc": 0.75}}
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.json"]


@pytest.mark.parametrize(("positive_rows", "is_defined"), [(0, False), (1, True), (9, True), (10, False)])
def test_nothing_is_ranked_among_labels_of_one_class(positive_rows: int, is_defined: bool) -> None:
    split = Split(rows=10, positive_rows=positive_rows, label_mean=0.5, shards=[])
    metrics = {"auc": 0.0, "pr-auc": 1.0, "accuracy": 1.0}
    nothing = {"auc": None, "pr-auc": None, "accuracy": 1.0}
    assert defined_metrics(metrics, split) == (metrics if is_defined else nothing)


def test_a_key_that_a_result_does_not_have_counts_as_its_default(dataset: Dataset) -> None:
    stored = TrainerConfig().model_dump(mode="json")
    del stored["strategy"]
    check_same_training("model", result_of(dataset, stored), dataset, TrainerConfig())
    with pytest.raises(DotbiasError, match=r"trainer\.strategy: auto -> cpu"):
        check_same_training("model", result_of(dataset, stored), dataset, TrainerConfig(strategy="cpu"))


def test_a_key_that_is_no_more_is_a_difference(dataset: Dataset) -> None:
    stored = {**TrainerConfig().model_dump(mode="json"), "momentum": 0.5}
    with pytest.raises(DotbiasError, match=r"trainer\.momentum: 0\.5 -> None"):
        check_same_training("model", result_of(dataset, stored), dataset, TrainerConfig())


def test_the_run_changes_with_configuration_and_dataset(dataset: Dataset) -> None:
    other = Dataset(dataset.path, dataset.manifest.model_copy(update={"versions": {"x": "1"}}), {})
    runs = {
        training_fingerprint(dataset, TrainerConfig()),
        training_fingerprint(dataset, TrainerConfig(seed=1)),
        training_fingerprint(other, TrainerConfig()),
    }
    assert len(runs) == 3


def test_keras_3_is_refused_before_it_is_too_late() -> None:
    code = "import sys, types; sys.modules['keras'] = types.ModuleType('keras'); import trainer"
    environment = {"PATH": ""}
    root = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, env=environment, capture_output=True, text=True)
    assert "ImportError: Keras 3 is already imported" in done.stderr


@pytest.mark.slow
def test_a_training_with_eval_labels_of_one_class_has_no_auc(tmp_path: Path) -> None:
    evaluation = random_rows(50, 2) | {"label": [1.0] * 50}
    write_dataset(tmp_path / "dataset", random_rows(300, 1), evaluation, SIDES, positive_at=0.5)
    config = small_config().model_copy(update={"epochs": 1, "refit": True})
    result = train(str(tmp_path / "dataset"), str(tmp_path / "model"), config)
    assert result == json.loads((tmp_path / "model" / "metrics.json").read_text())
    (epoch,) = result["train"]["epochs"]
    for metrics in (result["eval"], epoch["eval"]):
        assert metrics["auc"] is None and metrics["pr-auc"] is None and metrics["accuracy"] >= 0
    for metrics in (epoch["train"], result["train"]["refit"]["epochs"][0]["train"]):
        assert 0 < metrics["auc"] < 1
