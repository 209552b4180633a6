"""Evaluates a split and new files; results are kept, and made again when something changes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sklearn.metrics

from dotbias.evaluation.evaluate import StoredEvaluation, evaluate
from dotbias.evaluation.exported.client import Export
from dotbias.evaluation.request import EvaluationRequest
from dotbias.evaluation.results import Evaluation
from dotbias.evaluation.shard_rows import read_eval, read_train
from pipeline.config import InputConfig
from pipeline.manifest import DotbiasError
from tests.dotbias.evaluation.conftest import make_run, no_progress
from tests.trainer.conftest import SIDES, random_rows
from tests.trainer.datasets import write_dataset
from trainer.data.dataset import Dataset


def ask(run: Path, split: Any = "eval", *patterns: str, export: str | None = None) -> StoredEvaluation:
    return evaluate(EvaluationRequest(str(run), split, InputConfig(patterns=patterns), export), no_progress)


def codes(evaluation: Evaluation) -> set[str]:
    return {warning.code for warning in evaluation.warnings}


def contents(directory: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path(directory).iterdir()}


def test_a_split(run: Path) -> None:
    answer = ask(run)
    assert answer.directory == str(run / "evaluation" / "eval")
    assert sorted(contents(answer.directory)) == ["evaluation.json", "slices.csv"]
    found = answer.evaluation
    assert Evaluation.from_json((run / "evaluation/eval/evaluation.json").read_text()) == found
    data = make_run(run / "again")
    rows = read_eval(data, read_train(data, no_progress), no_progress)
    p = Export(str(run / "model/export"), data.manifest).probabilities(rows, no_progress)
    y = rows.labels >= 0.5
    assert found.subject.rows == 200 and found.subject.positives == y.sum()
    assert found.metrics["auc"].value == pytest.approx(sklearn.metrics.roc_auc_score(y, p))
    base = np.full(200, (read_train(data, no_progress).labels >= 0.5).mean())
    base_rate, biases = found.baselines
    assert base_rate.log_loss.value == pytest.approx(sklearn.metrics.log_loss(y, base))
    assert base_rate.auc.value == 0.5
    # The labels are those of biases; the model is random.
    assert biases.auc.value is not None and biases.auc.value > 0.8
    assert found.metrics["log-loss"].value is not None and biases.log_loss.value is not None
    gain = biases.log_loss.value - found.metrics["log-loss"].value
    assert biases.log_loss_gain.value == pytest.approx(gain)
    assert biases.auc_gain.high is not None and biases.auc_gain.high < 0
    assert "below-biases" in codes(found)
    by_kind: dict[str, int] = {}
    for part in found.slices:
        by_kind[part.kind] = by_kind.get(part.kind, 0) + part.rows
    assert by_kind["userId: warm or cold"] == by_kind["userId: train rows"] == 200
    assert sum(part.rows for part in found.calibration) == 200
    assert found.ranking is not None
    # A program reads the verdict from the file.
    stored = json.loads((run / "evaluation/eval/evaluation.json").read_text())["verdict"]
    assert stored["kind"] == "stop" and stored["reasons"]
    failed = [check for check in stored["checks"] if not check["passed"]]
    assert {"name", "value", "rule", "limit", "passed", "fails_as"} == failed[0].keys()


def test_an_evaluation_of_the_version_before_is_read(run: Path) -> None:
    found = ask(run).evaluation
    earlier = json.loads(found.to_json()) | {"format_version": 1}
    del earlier["verdict"]
    assert Evaluation.from_json(json.dumps(earlier)).metrics == found.metrics


def test_a_second_start_does_nothing_until_something_changes(run: Path) -> None:
    first = ask(run)
    before = contents(first.directory)
    second = ask(run)
    assert second.reused and not first.reused
    assert second.evaluation == first.evaluation and contents(first.directory) == before
    (run / "evaluation/eval/evaluation.json").write_text("{}")
    assert not ask(run).reused
    assert contents(first.directory) == before
    shutil.rmtree(run / "model")
    make_run(run / "other", num_oov_buckets=1)
    shutil.move(run / "other" / "model", run / "model")
    assert not ask(run).reused


def test_new_files_and_another_export(run: Path) -> None:
    raw = random_rows(80, 7, users=60)
    lines = [f"{u},{m},{r}" for u, m, r in zip(raw["userId"], raw["movieId"], raw["label"], strict=True)]
    (run / "new.csv").write_text("userId,movieId,rating\n" + "\n".join([*lines, "a,b,c"]) + "\n")
    answer = ask(run, None, str(run / "*.csv"))
    assert answer.directory == str(run / "evaluation" / "input-new")
    subject = answer.evaluation.subject
    assert (subject.split, subject.rows, subject.rejected) == (None, 80, 1)
    assert subject.rejected_by_reason == {"userId: not an int64": 1}
    assert [file.path for file in subject.files] == [str(run / "new.csv")]
    # The same model elsewhere gives the same numbers under its own name.
    shutil.copytree(run / "model" / "export", run / "copied")
    other = ask(run, None, str(run / "*.csv"), export=str(run / "copied"))
    assert other.directory == str(run / "evaluation" / f"input-new-{subject.export_fingerprint[:8]}")
    assert other.evaluation.metrics == answer.evaluation.metrics
    assert ask(run, None, str(run / "new.csv")).reused
    (run / "new.csv").write_text("userId,movieId,rating\n" + "\n".join(lines) + "\n")
    assert ask(run, None, str(run / "new.csv")).evaluation.subject.rejected == 0


def test_a_model_for_lists_beside_another_export(run: Path) -> None:
    """The log has labels, but the training says what it was for. With another export, it is another evaluation."""
    path = run / "model" / "metrics.json"
    metrics = json.loads(path.read_text()) | {"config": {"objective": "softmax"}}
    path.write_text(json.dumps(metrics))
    alone = ask(run).evaluation
    assert alone.subject.makes_lists and alone.ranking is not None
    assert [ranker.name for ranker in alone.ranking.rankers] == ["model", "popularity", "fold-in"]
    assert "below-biases" not in codes(alone) and alone.verdict is not None
    assert all(check.name.startswith(("NDCG@10", "warning")) for check in alone.verdict.checks)
    shutil.copytree(run / "model" / "export", run / "other")
    request = EvaluationRequest(str(run), "eval", InputConfig(), other_export=str(run / "other"))
    both = evaluate(request, no_progress)
    assert not both.reused and both.evaluation.ranking is not None
    other = {ranker.name: ranker for ranker in both.evaluation.ranking.rankers}["other export"]
    assert other.gains[0].ndcg.value == 0 and other.at == both.evaluation.ranking.rankers[0].at
    with pytest.raises(DotbiasError, match=r"nowhere has no saved_model\.pb"):
        evaluate(EvaluationRequest(str(run), "eval", InputConfig(), other_export=str(run / "nowhere")), no_progress)


@pytest.mark.slow
def test_eval_rows_are_for_the_model_before_the_refit(tmp_path: Path) -> None:
    make_run(tmp_path, refit={"rows": 800})
    export, before = (str(tmp_path / "model" / name) for name in ("export", "export_before_refit"))
    honest = ask(tmp_path)
    assert honest.evaluation.subject.export == before and honest.evaluation.subject.before_refit
    assert honest.directory == str(tmp_path / "evaluation" / "eval")
    flattered = ask(tmp_path, export=export).evaluation
    assert flattered.subject.export == export and not flattered.subject.before_refit
    assert [("trained-on-these-rows" in codes(found)) for found in (honest.evaluation, flattered)] == [False, True]
    # The two models differ in their predictions of the same rows.
    assert honest.evaluation.metrics["prediction_mean"] != flattered.metrics["prediction_mean"]
    # Train rows and new files are predicted by the served model.
    (tmp_path / "new.csv").write_text("userId,movieId,rating\n3,-7,1\n3,993,0\n")
    for split, patterns in (("train", ()), (None, (str(tmp_path / "new.csv"),))):
        subject = ask(tmp_path, split, *patterns).evaluation.subject
        assert subject.export == export and not subject.before_refit


def test_a_refit_by_a_version_that_left_no_model_before_it(tmp_path: Path) -> None:
    make_run(tmp_path, refit={"rows": 800})
    shutil.rmtree(tmp_path / "model" / "export_before_refit")
    found = ask(tmp_path).evaluation
    assert not found.subject.before_refit
    assert found.warnings[0].code == "trained-on-these-rows" and "refit" in found.warnings[0].text


def test_hashed_ids(tmp_path: Path) -> None:
    make_run(tmp_path, hashed=["userId", "movieId"])
    found = ask(tmp_path).evaluation
    cold = [part for part in found.slices if part.kind == "userId: warm or cold" and part.value == "cold"]
    assert cold and cold[0].users > 1
    assert found.ranking is not None
    of_train = ask(tmp_path, "train").evaluation
    assert "no-ranking" in codes(of_train)
    assert of_train.subject.rows == 600 and of_train.ranking is None


def test_an_empty_split_and_a_missing_model(tmp_path: Path) -> None:
    nothing = {"userId": [], "movieId": [], "label": []}
    write_dataset(tmp_path / "dataset", random_rows(50, 1), nothing, SIDES)
    with pytest.raises(DotbiasError, match="no exported model"):
        ask(tmp_path)
    make_run(tmp_path / "other")
    shutil.move(tmp_path / "other" / "model", tmp_path / "model")
    with pytest.raises(DotbiasError, match=r"no eval rows to evaluate\. Name files with --input"):
        ask(tmp_path)


def test_a_file_in_the_way_of_the_result_is_found_before_the_work(run: Path) -> None:
    (run / "evaluation").write_text("a file")
    stages: list[str] = []
    request = EvaluationRequest(str(run), "eval", InputConfig())
    with pytest.raises(DotbiasError, match=r"evaluation/eval cannot be written: "):
        evaluate(request, lambda stage, *_: stages.append(stage))
    assert "predict" not in stages


def test_one_class_is_said_and_nothing_invented(run: Path) -> None:
    (run / "new.csv").write_text("userId,movieId,rating\n" + "3,-7,1\n" * 60)
    found = ask(run, None, str(run / "new.csv")).evaluation
    assert found.metrics["auc"].value is None and found.metrics["log-loss"].value is not None
    assert "one-class" in codes(found)
    assert found.roc.x == [] and all(part.auc.value is None for part in found.slices)
    assert all(baseline.auc_gain.value is None for baseline in found.baselines)
    # It is JSON all the same.
    assert Evaluation.from_json(found.to_json()) == found


def test_a_manifest_without_configuration_reads_no_new_files(run: Path) -> None:
    data = Dataset(str(run / "dataset"), make_run(run / "x").manifest, {})
    text = data.manifest.model_copy(update={"config": {}}).to_json()
    (run / "dataset" / "manifest.json").write_text(text)
    (run / "new.csv").write_text("userId,movieId,rating\n3,-7,1\n")
    with pytest.raises(DotbiasError, match="configuration in the manifest"):
        ask(run, None, str(run / "new.csv"))
    assert ask(run).evaluation.subject.rows == 200
