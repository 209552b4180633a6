"""Measures a sample of the users where all rows do not fit memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import sklearn.metrics

from dotbias.evaluation import user_sample
from dotbias.evaluation.evaluate import StoredEvaluation, evaluate
from dotbias.evaluation.exported.client import Export
from dotbias.evaluation.request import EmptySampleError, EvaluationRequest
from dotbias.evaluation.rows import Rows
from dotbias.evaluation.shard_rows import read_eval, read_train
from dotbias.evaluation.stored import stored_evaluation, wanted
from dotbias.evaluation.user_sample import Counts, SampledRows, UserSample
from pipeline.config import InputConfig
from tests.dotbias.evaluation.conftest import make_run, no_progress
from tests.trainer.conftest import random_rows

SHARE = 0.4
SAMPLE = UserSample(SHARE, 42)


def request(run: Path, share: float = SHARE, split: Any = "eval", *patterns: str) -> EvaluationRequest:
    return EvaluationRequest(str(run), split, InputConfig(patterns=patterns), share=share)


def ask(run: Path, share: float = SHARE, split: Any = "eval", *patterns: str) -> StoredEvaluation:
    return evaluate(request(run, share, split, *patterns), no_progress)


def tokens_of(rows: Rows, name: str) -> list[Any]:
    return rows.ids[name].tokens.take(pa.array(rows.codes[name])).to_pylist()


@pytest.mark.parametrize("hashed", [[], ["userId", "movieId"]], ids=["vocabulary", "hashing"])
def test_all_rows_of_some_users(tmp_path: Path, hashed: list[str]) -> None:
    data = make_run(tmp_path, hashed=hashed)
    train = read_train(data, no_progress)
    splits = {"train": train, "eval": read_eval(data, train, no_progress)}
    some_train = read_train(data, no_progress, SAMPLE)
    sampled = {"train": some_train, "eval": read_eval(data, some_train, no_progress, SAMPLE)}
    chosen: dict[Any, bool] = {}
    for split, rows in splits.items():
        some = sampled[split]
        known = rows.identified("userId")
        here = set(np.array(tokens_of(some, "userId"))[some.identified("userId")].tolist())
        for user in set(np.array(tokens_of(rows, "userId"))[known].tolist()):
            assert chosen.setdefault(user, user in here) == (user in here), "the same users in both splits"
        mask = np.array([chosen.get(user, False) for user in tokens_of(rows, "userId")]) & known
        kept = some.identified("userId")
        for name in ("userId", "movieId"):
            assert np.array(tokens_of(some, name))[kept].tolist() == np.array(tokens_of(rows, name))[mask].tolist()
        np.testing.assert_array_equal(some.labels[kept], rows.labels[mask])
        assert some.sampled_from is not None and some.sampled_from.rows == len(rows)
        assert some.sampled_from.users == len(np.unique(rows.clusters("userId")))
        # Of rows whose user is lost, about as many.
        lost, taken = int((~known).sum()), int((~kept).sum())
        assert abs(taken - SHARE * lost) <= 4 * np.sqrt(lost * SHARE * (1 - SHARE))
    assert 0 < sum(chosen.values()) < len(chosen)
    # What train knows of the items does not depend on the sample.
    items = train.ids["movieId"]
    assert some_train.ids["movieId"].tokens.equals(items.tokens) and some_train.ids["movieId"].known == items.known
    np.testing.assert_array_equal(some_train.id_counts("movieId"), train.id_counts("movieId"))


def test_an_evaluation_of_a_sample_says_so(run: Path) -> None:
    everyone = ask(run, 1.0).evaluation
    assert everyone.subject.sample is None
    answer = ask(run)
    found, sample = answer.evaluation, answer.evaluation.subject.sample
    assert sample is not None
    assert sample.model_dump() == {"share": SHARE, "seed": 42, "rows": 200, "users": everyone.subject.users}
    data = make_run(run / "again")
    rows = read_eval(data, read_train(data, no_progress, SAMPLE), no_progress, SAMPLE)
    assert (found.subject.rows, found.subject.users) == (len(rows), len(np.unique(rows.clusters("userId"))))
    assert found.subject.users < everyone.subject.users
    p = Export(str(run / "model/export"), data.manifest).probabilities(rows, no_progress)
    assert found.metrics["auc"].value == pytest.approx(sklearn.metrics.roc_auc_score(rows.labels >= 0.5, p))
    # Fewer users, so a wider interval.
    wide, narrow = (one.metrics["auc"].high - one.metrics["auc"].low for one in (found, everyone))  # type: ignore[operator]
    assert wide > narrow
    assert found.verdict is not None and "a random sample: " in found.verdict.about
    # It is made once; the end of a run that would take a sample takes one that is there.
    assert ask(run).reused
    there = stored_evaluation(wanted(request(run, 1.0)), any_share=True)
    assert there is not None and there.evaluation.subject.sample is not None
    assert stored_evaluation(wanted(request(run, 1.0))) is None
    assert stored_evaluation(wanted(request(run, 0.5))) is None


def test_new_files_are_sampled_by_the_same_users(run: Path) -> None:
    raw = random_rows(300, 7, users=60)
    lines = [f"{u},{m},{r}" for u, m, r in zip(raw["userId"], raw["movieId"], raw["label"], strict=True)]
    (run / "new.csv").write_text("userId,movieId,rating\n" + "\n".join(lines) + "\n")
    subject = ask(run, SHARE, None, str(run / "new.csv")).evaluation.subject
    chosen = SAMPLE.has(SAMPLE.hashes(pa.array(raw["userId"], pa.int64())))
    assert subject.sample is not None
    assert (subject.rows, subject.users) == (chosen.sum(), len(set(np.array(raw["userId"])[chosen])))
    assert (subject.sample.rows, subject.sample.users) == (300, len(set(raw["userId"])))


def test_a_sample_without_rows(run: Path) -> None:
    with pytest.raises(EmptySampleError, match=r"a sample of 0\.00% of the users has no rows; measure a larger share"):
        ask(run, 1e-9)


def test_rows_of_a_share_of_the_users_are_held() -> None:
    users = np.repeat(np.arange(10_000), 5)
    sampled = SampledRows(UserSample(1 / 8, 1), "user")
    held = [sampled.take(pa.table({"user": users[begin : begin + 1000]})) for begin in range(0, len(users), 1000)]
    # Four standard deviations.
    assert abs(sum(map(len, held)) - len(users) / 8) < 4 * 5 * np.sqrt(10_000 / 8)


def test_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(user_sample, "_PENDING", 10)
    draws = np.random.default_rng(0).integers(0, 50, 1000)
    counts = Counts()
    for begin in range(0, 1000, 30):
        counts.add(pa.array(draws[begin : begin + 30]))
    values, expected = np.unique(draws, return_counts=True)
    assert dict(zip(counts.values().to_pylist(), counts.counts().tolist(), strict=True)) == dict(
        zip(values.tolist(), expected.tolist(), strict=True)
    )
    assert len(Counts().values()) == 0
