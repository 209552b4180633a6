"""Tests the text at the end of a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from dotbias.cli.console.summary import HeldOutResult, RunReport, summary
from pipeline.manifest import Column, Counts, DatasetManifest, Feature, Label, Split

MANIFEST = DatasetManifest(
    columns=[
        Column(name="userId", dtype="int64", role="feature"),
        Column(name="movieId", dtype="string", role="feature"),
        Column(name="clicked", dtype="float32", role="label"),
    ],
    label=Label(column="clicked", threshold=None, scale=None, soft_weight=1.0, positive_at=1.0),
    features={
        "userId": Feature(
            side="user",
            encoding="vocabulary",
            token_dtype="int64",
            vocabulary_size=1234,
            num_oov_buckets=1,
            vocabulary_path="vocabulary/userId.txt",
            counts_path="vocabulary/userId.counts.txt",
            fingerprint="0",
            oov_rows={"train": 9, "eval": 1},
        ),
        "movieId": Feature(side="item", encoding="hashing", token_dtype="string"),
    },
    splits={
        "train": Split(rows=900, positive_rows=300, label_mean=1 / 3, shards=[]),
        "eval": Split(rows=0, positive_rows=0, label_mean=None, shards=[]),
    },
    counts=Counts(read=903, train=900, eval=0, rejected=3, rejected_by_reason={"empty token": 1, "not a number": 2}),
    input=[],
    config={},
    versions={},
)
METRICS = {
    "config": {"hashing": {"movieId": {"num_bins": 5000}}},
    "train": {"epochs": [{"epoch": 1}, {"epoch": 2}], "rows_per_second": 1_234_567.8},
    "eval": {"auc": 0.8123, "pr-auc": 0.7, "accuracy": 0.75, "label-crossentropy": 0.5},
}


def test_everything(tmp_path: Path) -> None:
    (tmp_path / "vocabulary").mkdir()
    (tmp_path / "vocabulary" / "userId.txt").write_text("414\n599\n")
    text = summary(
        RunReport(
            dataset=str(tmp_path),
            model="out/runs/a/model",
            manifest=MANIFEST,
            metrics=METRICS,
            test=HeldOutResult(0.78, 0.7956),
            verdict_lines=["Ready to ship", "auc 0.8"],
            already_done=["preprocess", "train", "evaluate"],
            seconds={"preprocess": 12.34, "train": 5.0},
        )
    )
    for line in (
        "903 read = 900 train + 0 eval + 3 rejected",
        "2 rejected: not a number\n            1 rejected: empty token",
        "userId   user, 1,234 tokens + 1 OOV bucket; OOV 1.00% of train",
        "movieId  item, hashed into 5,000 bins",
        "2 epochs, 1,234,568 rows/s",
        "auc 0.8123, pr-auc 0.7000, accuracy 0.7500\n            label-crossentropy 0.5000",
        "AUC 0.7800 on held-out rows, through the export",
        "AUC 0.7956 is the best possible, by the true model of the sample (0.0156 away)",
        "preprocess 12.3, train 5.0",
        "preprocess, train and evaluate: already done by an earlier start",
        "Verdict     Ready to ship\n            auc 0.8\n",
        f"{tmp_path}/rejected/",
        "tensorboard --logdir out/runs/a/model",
        "predict(userId=tf.constant([414], tf.int64), movieId=tf.constant(['a token'], tf.string))",
    ):
        assert line in text
    assert text.endswith("\n")


@pytest.mark.parametrize(
    ("epochs", "text"),
    [
        ([1], "1 epoch, "),
        ([1, 2], "2 epochs, "),
        ([0.4, 0.8, 1.2], "1.2 epochs, measured 3 times, "),
        ([0], "0 epochs, "),
    ],
)
def test_the_length_of_a_training(epochs: list[float], text: str) -> None:
    train = {"epochs": [{"epoch": epoch} for epoch in epochs if epoch], "rows_per_second": 1000}
    shown = summary(RunReport(dataset="dataset", model="model", metrics={**METRICS, "train": train}))
    assert f"Training    {text}1,000 rows/s" in shown


def test_preprocessing_alone() -> None:
    text = summary(RunReport(dataset="out/runs/a/dataset", model="out/runs/a/model", manifest=MANIFEST))
    assert "out/runs/a/dataset/manifest.json" in text
    assert "movieId  item, hashed by the trainer" in text
    assert "tensorboard" not in text
    assert "export" not in text


def test_the_rows_add_up_with_a_window_and_duplicates() -> None:
    counts = MANIFEST.counts.model_copy(update={"read": 1910, "out_of_window": 1000, "duplicates": 7})
    manifest = MANIFEST.model_copy(update={"counts": counts})
    text = summary(RunReport(dataset="dataset", model="model", manifest=manifest))
    assert (
        "1,910 read = 900 train + 0 eval + 3 rejected + 1,000 out of the window + 7 duplicates\n            2 rejected"
    ) in text


def test_rejected_rows_that_are_not_kept() -> None:
    counts = MANIFEST.counts.model_copy(update={"rejected_not_kept": {"not a number": 1}})
    text = summary(RunReport(dataset="dataset", model="model", manifest=MANIFEST.model_copy(update={"counts": counts})))
    assert "2 rejected: not a number (1 of them kept)\n            1 rejected: empty token\n" in text


def test_which_metrics_go_by_a_label_on_a_scale() -> None:
    scaled = MANIFEST.label.model_copy(update={"threshold": 4.0, "scale": (0.5, 5.0), "soft_weight": 0.8})
    said = "auc, pr-auc and accuracy go by positive or not, the others by the label"
    for label, is_said in ((MANIFEST.label, False), (scaled, True)):
        manifest = MANIFEST.model_copy(update={"label": label})
        text = summary(RunReport(dataset="dataset", model="model", manifest=manifest, metrics=METRICS))
        assert (said in text) == is_said


def test_training_alone() -> None:
    report = RunReport(dataset="out/runs/a/dataset", model="out/runs/a/model", metrics=METRICS)
    assert "out/runs/a/model/metrics.json" in summary(report)
