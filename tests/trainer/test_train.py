from __future__ import annotations

import gc
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from pipeline.manifest import MANIFEST_NAME, DotbiasError
from tests.trainer.conftest import SIDES, random_rows
from tests.trainer.datasets import write_dataset
from tests.trainer.runs import Finished, Killed, assert_same_weights, without_times
from trainer import train as train_module
from trainer.config import TrainerConfig
from trainer.data.dataset import Dataset
from trainer.finished import is_complete
from trainer.loop.checkpoint import CheckpointDirectory, checkpoint_name
from trainer.loop.evaluate import METRICS
from trainer.output.export import export_with_items
from trainer.search.tuning import tune
from trainer.train import train


def test_files_metrics_and_progress(finished: Finished) -> None:
    result, calls = finished.result, finished.progress
    assert result == json.loads((finished.model_dir / "metrics.json").read_text())
    names = {"label-crossentropy", "auc", "pr-auc", "accuracy", "prediction_mean", "label_mean"}
    assert result["eval"].keys() == names
    for record in result["train"]["epochs"]:
        for split in ("train", "eval"):
            assert record[split].keys() == names
            assert record[split]["label_mean"] == pytest.approx(finished.data.split(split).label_mean, rel=1e-5)
    best = result["train"]["epochs"][result["train"]["best_epoch"] - 1]["eval"]
    # While training, accuracy is that of the logit; in the end, of the probability.
    assert result["eval"] == pytest.approx({**best, "accuracy": result["calibration"]["accuracy"]})
    assert result["train"]["rows_per_second"] > 0
    assert result["config"] == finished.config.model_dump(mode="json")
    assert result["dataset"]["fingerprint"] == finished.data.fingerprint
    # Nine steps an epoch, three in one call.
    assert [done for _, done, _, _ in calls[:5]] == [0, 192, 384, 550, 742]
    assert calls[-1][:3] == ("train", 1650, 1650) and calls[-1][3]["epoch"] == 3
    for split, directory in (("train", "train"), ("eval", "validation")):
        (events,) = (finished.model_dir / "tensorboard" / directory).iterdir()
        written = [
            (event.step, value.tag.removeprefix("epoch_"), float(tf.make_ndarray(value.tensor)))
            for event in tf.compat.v1.train.summary_iterator(str(events))
            for value in event.summary.value
        ]
        assert [row for row in written if row[1] in METRICS] == [
            (record["epoch"] - 1, name, pytest.approx(value))
            for record in result["train"]["epochs"]
            for name, value in record[split].items()
        ]


def keep_checkpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.train.delete_checkpoints", lambda model_dir: None)


@pytest.mark.slow
def test_the_state_on_disk_says_which_epoch_was_best(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep_checkpoints(monkeypatch)
    train(finished.data.path, str(tmp_path), finished.config)
    state = CheckpointDirectory(str(tmp_path)).last_state()
    assert state is not None
    assert [record.epoch for record in state.periods] == [1, 2, 3]
    assert state.best_value == max(record.eval["auc"] for record in state.periods)


@pytest.mark.slow
def test_the_variables_of_a_training_are_freed(
    dataset: Dataset, config: TrainerConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The average of the first training before the refit begins, and all of them at the end."""
    # No other test has tables of so many units.
    config = config.model_copy(update={"embedding_dim": 11, "epochs": 1, "refit": True})
    counts: list[int] = []

    def counted(*arguments: Any) -> Any:
        counts.append(handles(11))
        return refit(*arguments)

    refit = train_module._refit_model
    monkeypatch.setattr(train_module, "_refit_model", counted)
    train(dataset.path, str(tmp_path / "model"), config)
    assert [*counts, handles(11)] == [2, 0]


def handles(width: int) -> int:
    """Counts the tables of this width that are in memory."""
    gc.collect()
    found = [each for each in gc.get_objects() if isinstance(each, tf.Tensor) and each.dtype == tf.resource]
    shapes = [
        part.shape for each in found for part in getattr(getattr(each, "_handle_data", None), "shape_and_type", ())
    ]
    return sum(len(shape.dim) == 2 and shape.dim[1].size == width for shape in shapes)


@pytest.mark.slow
def test_a_run_on_the_cpu_is_repeatable(finished: Finished, tmp_path: Path) -> None:
    again = train(finished.data.path, str(tmp_path / "again"), finished.config)
    assert without_times(again) == without_times(finished.result)
    assert_same_weights(tmp_path / "again", finished.model_dir)
    train(finished.data.path, str(tmp_path / "other"), finished.config.model_copy(update={"seed": 43}))
    with pytest.raises(AssertionError):
        assert_same_weights(tmp_path / "other", finished.model_dir)


@pytest.mark.slow
def test_an_interrupted_training_goes_on_as_if_undisturbed(finished: Finished, tmp_path: Path) -> None:
    def die_in_the_third_epoch(stage: str, done: int, total: int | None, metrics: Mapping[str, float]) -> None:
        if done > 2 * 550:
            raise Killed

    with pytest.raises(Killed):
        train(finished.data.path, str(tmp_path / "model"), finished.config, die_in_the_third_epoch)
    assert not (tmp_path / "model" / "metrics.json").exists()
    done: list[int] = []
    resumed = train(finished.data.path, str(tmp_path / "model"), finished.config, lambda *call: done.append(call[1]))
    assert done == [2 * 550, 2 * 550 + 192, 2 * 550 + 384, 3 * 550]
    assert without_times(resumed) == without_times(finished.result)
    assert_same_weights(tmp_path / "model", finished.model_dir)


@pytest.mark.slow
def test_what_another_configuration_left_unfinished_is_deleted(finished: Finished, tmp_path: Path) -> None:
    other = finished.config.model_copy(update={"embedding_dim": 6, "epochs": 1})
    train(finished.data.path, str(tmp_path / "model"), other)
    (tmp_path / "model" / "metrics.json").unlink()
    mine = tmp_path / "model" / "notes.txt"
    mine.touch()
    train(finished.data.path, str(tmp_path / "model"), finished.config)
    assert_same_weights(tmp_path / "model", finished.model_dir)
    assert mine.exists()


def test_a_finished_training_is_not_done_again(finished: Finished, tmp_path: Path) -> None:
    arguments = (finished.data.path, str(finished.model_dir), finished.config)
    assert is_complete(*arguments)
    assert not is_complete(finished.data.path, str(tmp_path / "model"), finished.config)
    calls: list[Any] = []
    assert train(*arguments, lambda *call: calls.append(call)) == finished.result
    assert not calls


@pytest.mark.parametrize("function", [train, is_complete])
def test_a_finished_training_of_another_run_is_refused(
    finished: Finished, tmp_path: Path, function: Callable[..., Any]
) -> None:
    other = finished.config.model_copy(update={"embedding_dim": 6})
    with pytest.raises(DotbiasError, match=r"trainer.embedding_dim: 4 -> 6\)\. Choose another `--run_id`"):
        function(finished.data.path, str(finished.model_dir), other)
    write_dataset(tmp_path, random_rows(500, 5), random_rows(90, 6), SIDES)
    with pytest.raises(DotbiasError, match=r"\(the dataset: \w+ -> \w+\)"):
        function(str(tmp_path), str(finished.model_dir), finished.config)


def test_checkpoints_go_when_training_is_finished(finished: Finished, tmp_path: Path) -> None:
    assert not (finished.model_dir / "checkpoints").exists()
    # Those of a training that was killed before it could delete them.
    shutil.copytree(finished.model_dir, tmp_path / "model")
    for name in ("checkpoints", "refit/checkpoints"):
        (tmp_path / "model" / name).mkdir(parents=True)
        (tmp_path / "model" / name / "period-000001-step-00000000.index").touch()
    assert train(finished.data.path, str(tmp_path / "model"), finished.config) == finished.result
    assert not list((tmp_path / "model").rglob("checkpoints")) and (tmp_path / "model" / "refit").exists()


def test_checkpoints_that_cannot_be_deleted_are_a_warning(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(finished.model_dir, tmp_path / "model")
    (tmp_path / "model" / "checkpoints").mkdir()

    def fail(path: str) -> None:
        raise PermissionError(f"{path}; Permission denied")

    monkeypatch.setattr("trainer.data.files.shutil.rmtree", fail)
    assert train(finished.data.path, str(tmp_path / "model"), finished.config) == finished.result
    assert "model/checkpoints stay" in caplog.text and "Permission denied" in caplog.text


@pytest.mark.slow
def test_early_stopping_keeps_the_best_weights(
    dataset: Dataset, config: TrainerConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep_checkpoints(monkeypatch)
    # Far too fast, so that the eval split gets worse soon.
    fast = {"optimizer": {"learning_rate": 0.5}, "l2": 0, "epochs": 30, "embedding_dim": 16}
    config = TrainerConfig.model_validate({**config.model_dump(), **fast})
    result = train(dataset.path, str(tmp_path / "model"), config)["train"]
    aucs = [record["eval"]["auc"] for record in result["epochs"]]
    assert result["stopped_early"] and len(aucs) < 30
    assert result["best_epoch"] == int(np.argmax(aucs)) + 1 == len(aucs) - config.early_stopping.patience
    metrics = json.loads((tmp_path / "model" / "metrics.json").read_text())
    assert metrics["eval"]["auc"] == pytest.approx(max(aucs))
    kept = {path.name.split(".")[0] for path in (tmp_path / "model" / "checkpoints").glob("period-*")}
    assert kept == {checkpoint_name(e) for e in (result["best_epoch"], len(aucs) - 1, len(aucs))}


@pytest.mark.slow
def test_without_eval_rows_all_epochs_are_trained(
    config: TrainerConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    nothing = {"userId": [], "movieId": [], "label": []}
    write_dataset(tmp_path / "dataset", random_rows(200, 1), nothing, SIDES)
    result = train(str(tmp_path / "dataset"), str(tmp_path / "model"), config)
    assert "no rows: training all 3 epochs" in caplog.text
    assert result["eval"] == {} and len(result["train"]["epochs"]) == result["train"]["best_epoch"] == 3


@pytest.mark.parametrize("label", [0.0, 1.0])
@pytest.mark.parametrize("threshold", [None, 4.0])
@pytest.mark.parametrize("run", [train, tune])
def test_train_rows_of_one_label_are_refused_before_training(
    config: TrainerConfig, tmp_path: Path, label: float, threshold: float | None, run: Callable[..., Any]
) -> None:
    splits = [{**random_rows(rows, rows), "label": [label] * rows} for rows in (200, 30)]
    manifest = write_dataset(tmp_path / "dataset", *splits, SIDES)
    cut = manifest.label.model_copy(update={"threshold": threshold, "soft_weight": None})
    (tmp_path / "dataset" / MANIFEST_NAME).write_text(manifest.model_copy(update={"label": cut}).to_json())
    change = "Add rows with the other label" if threshold is None else r"Move `pipeline\.label\.threshold`, now 4,"
    said = rf"All 200 train rows of .* have label {label:g}, .* AUC .*\. {change}"
    with pytest.raises(DotbiasError, match=said) as caught:
        run(str(tmp_path / "dataset"), str(tmp_path / "model"), config)
    assert ("`pipeline.label: implicit`" in str(caught.value)) == (label == 1.0)
    assert not (tmp_path / "model" / "checkpoints").exists()


@pytest.mark.slow
def test_eval_rows_of_one_label_are_a_warning(
    config: TrainerConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = {**random_rows(30, 1), "label": [1.0] * 30}
    write_dataset(tmp_path / "dataset", random_rows(200, 2), rows, SIDES)
    result = train(str(tmp_path / "dataset"), str(tmp_path / "model"), config)
    assert "one class only" in caplog.text and result["eval"]["auc"] is None


def test_a_missing_shard_is_found_before_training(dataset: Dataset, config: TrainerConfig, tmp_path: Path) -> None:
    Path(dataset.file("eval/part-00000-of-00001.csv.gz")).unlink()
    with pytest.raises(DotbiasError, match=r"eval/part-00000-of-00001.csv.gz is missing"):
        train(dataset.path, str(tmp_path / "model"), config)


def checkerboard(size: int) -> tuple[dict[str, Any], dict[str, Any], dict[int, int]]:
    """Users like items of their own parity; each user's item of the same number is withheld."""
    rows = [(u, i, float(u % 2 == i % 2)) for u in range(size) for i in range(size)]
    train_rows = [row for row in rows if row[0] != row[1]]
    columns = [
        dict(zip(SIDES, zip(*((u, i) for u, i, _ in part), strict=True), strict=True)) for part in (train_rows, rows)
    ]
    return (
        {**columns[0], "label": [label for *_, label in train_rows]},
        {**columns[1], "label": [label for *_, label in rows]},
        {u: u for u in range(size)},
    )


@pytest.mark.parametrize("hashed", [pytest.param([], marks=pytest.mark.slow), ["userId", "movieId"]])
def test_on_a_checkerboard_the_withheld_item_ranks_first(tmp_path: Path, hashed: list[str]) -> None:
    size = 16
    train_rows, all_rows, withheld = checkerboard(size)
    write_dataset(tmp_path / "dataset", train_rows, all_rows, SIDES, hashed=hashed)
    config = TrainerConfig.model_validate(
        {
            "embedding_dim": 4,
            "batch_size": 16,
            "epochs": 12,
            "optimizer": {"learning_rate": 0.05},
            "l2": 0.0,
            "early_stopping": {"monitor": "label-crossentropy", "patience": 5},
            # So many that no two tokens share a bin.
            "hashing": {name: {"num_bins": 5000} for name in hashed},
        }
    )
    train(str(tmp_path / "dataset"), str(tmp_path / "model"), config)
    serve = tf.saved_model.load(str(tmp_path / "model" / "export")).signatures["serving_default"]
    seen = {(u, i) for u, i in zip(train_rows["userId"], train_rows["movieId"], strict=True)}
    for user, item in withheld.items():
        # Among the items that the user has not rated well: the withheld one and those of the other parity.
        candidates = [i for i in range(size) if (user, i) not in seen or i % 2 != user % 2]
        tokens = {
            "userId": tf.constant([user] * len(candidates), tf.int64),
            "movieId": tf.constant(candidates, tf.int64),
        }
        best = int(np.argmax(serve(**tokens)["probability"]))
        assert candidates[best] == item

    # The same as lists, for all users at once; hashed ids have a list of items if one is given.
    export = tmp_path / "model" / "export"
    if hashed:
        (tmp_path / "items.txt").write_text("".join(f"{i}\n" for i in range(size)))
        export_with_items(str(export), str(tmp_path / "items.txt"), str(tmp_path / "listed"), str(tmp_path / "dataset"))
        export = tmp_path / "listed"
    recommend = tf.saved_model.load(str(export)).signatures["recommend"]
    liked = [[i for i in range(size) if (user, i) in seen and i % 2 == user % 2] for user in withheld]
    answer = recommend(
        userId=tf.constant(list(withheld), tf.int64), exclude=tf.constant(liked, tf.int64), k=tf.constant(1)
    )
    assert answer["items"].numpy()[:, 0].tolist() == list(withheld.values())
