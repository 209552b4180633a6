"""Makes the contents of a report from a small known model, with text that a page has to escape."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from dotbias.evaluation.exported.embeddings import Embedding
from dotbias.evaluation.report.run_page import RunContents
from dotbias.evaluation.results import (
    Baseline,
    CalibrationBin,
    Curve,
    Estimate,
    Evaluation,
    EvaluationWarning,
    Ranker,
    Ranking,
    RankingAtK,
    RankingGain,
    RankingSlice,
    Slice,
    Subject,
)
from pipeline.manifest import Column, Counts, DatasetManifest, Feature, InputFile, Label, Split

# A browser would run and load this if it were not escaped.
HOSTILE = '<script>document.title = "run"</script><img src="https://example.com/a.png">'
USERS, ITEMS, DIM = 300, 120, 5


def estimate(value: float, half: float = 0.01) -> Estimate:
    return Estimate(value=value, low=value - half, high=value + half)


def subject(**changes: Any) -> Subject:
    fields: dict[str, Any] = {
        "export": "out/runs/a/model/export",
        "export_fingerprint": "1",
        "dataset": "out/runs/a/dataset",
        "dataset_fingerprint": "2",
        "split": "eval",
        "files": [],
        "rows": 1000,
        "positives": 510,
        "users": 200,
        "rejected": 0,
        "rejected_by_reason": {},
        "user": "userId",
        "item": "movieId",
        "resamples": 500,
    }
    return Subject(**{**fields, **changes})


def evaluation(**changes: Any) -> Evaluation:
    """Makes the evaluation of a model that is worth shipping, unless `changes` replace some fields."""
    share = np.linspace(0, 1, 41)
    bins = [
        CalibrationBin(
            low=i / 10, high=(i + 0.9) / 10, rows=100, prediction_mean=i / 10 + 0.05, label_mean=i / 10 + 0.06
        )
        for i in range(10)
    ]
    fields: dict[str, Any] = {
        "fingerprint": "0",
        "subject": subject(),
        "metrics": {
            "auc": estimate(0.8),
            "pr-auc": estimate(0.78),
            "accuracy": estimate(0.73),
            "log-loss": estimate(0.53),
            "brier": estimate(0.18),
            "ece": estimate(0.01, 0.005),
            "prediction_mean": estimate(0.5),
            "label_mean": estimate(0.51),
        },
        "calibration": bins,
        "roc": Curve(x=share.tolist(), y=(share**0.25).tolist()),
        "pr": Curve(x=share.tolist(), y=(1 - share / 2).tolist()),
        "slices": [
            slice_("item", "warm", 900, 0.81),
            slice_("item", "out of vocabulary", 100, 0.6),
            slice_("genre", HOSTILE, 500, 0.8),
        ],
        "baselines": [
            Baseline(
                name="base rate",
                auc=estimate(0.5, 0),
                log_loss=estimate(0.69),
                auc_gain=estimate(0.3),
                log_loss_gain=estimate(0.16),
            ),
            Baseline(
                name="biases alone",
                auc=estimate(0.77),
                log_loss=estimate(0.56),
                auc_gain=estimate(0.03),
                log_loss_gain=estimate(0.03),
            ),
        ],
        "ranking": ranking(model=0.1, popularity=0.05),
        "warnings": [],
        "versions": {"numpy": "2"},
    }
    return Evaluation(**(fields | changes))


def slice_(kind: str, value: str, rows: int, auc: float, prediction_mean: float = 0.5) -> Slice:
    return Slice(
        kind=kind,
        value=value,
        rows=rows,
        positives=rows // 2,
        users=50,
        prediction_mean=prediction_mean,
        label_mean=0.5,
        auc=estimate(auc, 0.03),
        log_loss=estimate(0.5),
    )


def ranking(model: float, popularity: float, **others: float) -> Ranking:
    """Rankers by NDCG@10; `other_export` and `fold_in` may be among `others`."""

    def ranker(name: Any, ndcg: float) -> Ranker:
        at = RankingAtK(
            k=10,
            recall=estimate(0.1),
            ndcg=estimate(ndcg),
            hit_rate=estimate(0.4),
            mrr=estimate(0.15),
            coverage=0.3,
            popularity=0.9,
            popular_share=0.6,
            novelty=7.5,
        )
        gain = RankingGain(k=10, recall=estimate(0), ndcg=estimate(model - ndcg), hit_rate=estimate(0), mrr=estimate(0))
        return Ranker(name=name, at=[at], mrr=estimate(0.2), gains=[] if name == "model" else [gain])

    names = {"other_export": "other export", "fold_in": "fold-in"}
    part = RankingSlice(
        kind="userId: train rows",
        value="5-9",
        k=20,
        users=30,
        relevant=50,
        recall=estimate(0.2),
        popularity_recall=estimate(0.1),
    )
    return Ranking(
        users=150,
        eligible=150,
        items=ITEMS,
        relevant=400,
        unrankable=20,
        relevant_popularity=0.7,
        relevant_popular_share=0.5,
        rankers=[
            ranker("model", model),
            ranker("popularity", popularity),
            *(ranker(names[name], ndcg) for name, ndcg in others.items()),
        ],
        slices=[part],
    )


def warning(code: Any = "no-cold-ids", text: str = "All users of eval are in train.") -> EvaluationWarning:
    return EvaluationWarning(code=code, text=text)


def embeddings(seed: int = 0) -> dict[str, Embedding]:
    """Makes embeddings in which items 0 to 9, 10 to 19, ... point in the same direction and are neighbours."""
    rng = np.random.default_rng(seed)
    found = {}
    for name, side, size in (("userId", "user", USERS), ("movieId", "item", ITEMS)):
        table = rng.normal(0, 0.01, (size + 1, DIM)).astype(np.float32)
        table[:, :-1] += np.repeat(rng.normal(0, 1, (size // 10 + 1, DIM - 1)), 10, axis=0)[: size + 1]
        counts = np.append(np.ceil(2000 / np.arange(1, size + 1)), 5).astype(np.float32)
        tokens = [f"{name} {index}" for index in range(size)]
        found[name] = Embedding(side=side, counts=counts, table=table, vocabulary_size=size, tokens=tokens)  # type: ignore[arg-type]
    return found


def manifest() -> DatasetManifest:
    def feature(side: Any, size: int) -> Feature:
        return Feature(
            side=side,
            encoding="vocabulary",
            token_dtype="string",
            vocabulary_size=size,
            num_oov_buckets=1,
            oov_rows={"train": 5, "eval": 30},
        )

    return DatasetManifest(
        columns=[
            Column(name="userId", dtype="int64", role="feature"),
            Column(name="movieId", dtype="int64", role="feature"),
            Column(name="label", dtype="float32", role="label"),
        ],
        label=Label(column="rating", threshold=4.0, scale=(0.5, 5.0), soft_weight=0.8, positive_at=0.72),
        features={"userId": feature("user", USERS), "movieId": feature("item", ITEMS)},
        splits={
            "train": Split(rows=9000, positive_rows=4500, label_mean=0.6, shards=[]),
            "eval": Split(rows=1000, positive_rows=510, label_mean=0.6, shards=[]),
        },
        counts=Counts(read=10_003, train=9000, eval=1000, rejected=3, rejected_by_reason={HOSTILE: 3}),
        input=[InputFile(path=HOSTILE, bytes=12_345, modified=0.0)],
        config={"seed": 42},
        versions={"dotbias": "0.1.0"},
    )


def metrics() -> dict[str, Any]:
    def epoch(number: int) -> dict[str, Any]:
        auc = 0.8 - 0.1 / number
        return {
            "epoch": number,
            "train": {"auc": auc + 0.02, "label-crossentropy": 1 - auc},
            "eval": {"auc": auc, "label-crossentropy": 1.02 - auc},
        }

    return {
        "config": {"embedding_dim": DIM},
        "train": {"epochs": [epoch(number) for number in range(1, 6)], "best_epoch": 4, "stopped_early": True},
        "eval": {"auc": 0.8, "label-crossentropy": 0.22},
        "calibration": {"scale": 1.0, "offset": 0.0},
        "versions": {"tensorflow": "2.21"},
    }


def titles() -> Mapping[str, Mapping[str, str]]:
    return {"movieId": {"movieId 0": HOSTILE, "movieId 1": "Heat & Dust"}}


def contents(**changes: Any) -> RunContents:
    fields: dict[str, Any] = {
        "run": HOSTILE,
        "manifest": manifest(),
        "metrics": metrics(),
        "embeddings": embeddings(),
        "evaluation": evaluation(),
        "titles": titles(),
    }
    return RunContents(**(fields | changes))
