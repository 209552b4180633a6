"""Compares predictions and vectors of an export with the formula, and loads exports that are refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from dotbias.evaluation.exported.client import Export
from dotbias.evaluation.exported.fingerprint import export_fingerprint
from dotbias.evaluation.shard_rows import read_eval, read_train
from pipeline.manifest import DotbiasError
from tests.dotbias.evaluation.conftest import EVAL, make_run, no_progress, run_config
from tests.trainer.output.test_export import expected, trained_like


@pytest.mark.parametrize("hashed", [[], ["movieId"], ["userId", "movieId"]])
def test_probabilities_and_vectors_of_shards(tmp_path: Path, hashed: list[str]) -> None:
    data = make_run(tmp_path, hashed=hashed)
    model = trained_like(data, run_config(hashed))
    rows = read_eval(data, read_train(data, no_progress), no_progress)
    export = Export(str(tmp_path / "model" / "export"), data.manifest)
    probability = export.probabilities(rows, no_progress)
    # Also of ids that are out of vocabulary, which go to the bucket that the raw token goes to.
    wanted = expected(model, data, {name: EVAL[name] for name in ("userId", "movieId")})
    np.testing.assert_allclose(probability, wanted, atol=1e-6)
    assert export.vectors_explain(rows, probability)
    assert not export.vectors_explain(rows, 1 - probability)


def test_an_export_of_other_features_is_refused(tmp_path: Path, run: Path) -> None:
    manifest = make_run(tmp_path / "strings").manifest
    features = {"customer": manifest.features["userId"], "movieId": manifest.features["movieId"]}
    with pytest.raises(
        DotbiasError,
        match="takes the features movieId int64, userId int64, but the dataset has customer int64, movieId int64",
    ):
        Export(str(run / "model" / "export"), manifest.model_copy(update={"features": features}))


def test_an_export_may_be_asked_for_rows_with_a_further_feature(tmp_path: Path) -> None:
    data = make_run(tmp_path)
    trained_like(data, run_config([]))
    rows = read_eval(data, read_train(data, no_progress), no_progress)
    of = data.manifest.features
    more = data.manifest.model_copy(update={"features": {**of, "country": of["userId"]}})
    path = str(tmp_path / "model" / "export")
    with pytest.raises(DotbiasError, match="but the dataset has country"):
        Export(path, more)
    export, usual = Export(path, more, fewer=True), Export(path, data.manifest)
    answers = export.probabilities(rows, no_progress)
    np.testing.assert_array_equal(answers, usual.probabilities(rows, no_progress))
    assert export.vectors_explain(rows, answers)
    fewer = data.manifest.model_copy(update={"features": {"movieId": of["movieId"]}})
    with pytest.raises(DotbiasError, match="takes the features"):
        Export(path, fewer, fewer=True)


def test_an_export_that_is_missing_or_damaged(run: Path) -> None:
    with pytest.raises(DotbiasError, match=r"no exported model\. Run `--stage train` first"):
        export_fingerprint(str(run / "model"))
    before = export_fingerprint(str(run / "model" / "export"))
    shutil.copytree(run / "model" / "export", run / "copy")
    assert export_fingerprint(str(run / "copy")) == export_fingerprint(str(run / "copy") + "/") == before
    data = make_run(run / "other")
    (run / "copy" / "saved_model.pb").write_bytes(b"not a model")
    assert export_fingerprint(str(run / "copy")) != before
    with pytest.raises(DotbiasError, match="cannot be loaded as an exported model"):
        Export(str(run / "copy"), data.manifest)
