"""Writes the report of a run directory with the tables of the export."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from dotbias.evaluation.evaluate import evaluate
from dotbias.evaluation.exported.embeddings import read_embeddings
from dotbias.evaluation.report.run_page import write_run_page
from dotbias.evaluation.request import EvaluationRequest
from pipeline.config import InputConfig
from tests.dotbias.evaluation.conftest import make_run, no_progress, run_config
from trainer.config import TrainerConfig
from trainer.model.tables import index_counts


@pytest.mark.parametrize("hashed", [[], ["userId"], ["userId", "movieId"]])
def test_the_tables_of_an_export(tmp_path: Path, hashed: list[str]) -> None:
    data = make_run(tmp_path, hashed=hashed)
    export = str(tmp_path / "model" / "export")
    found = read_embeddings(data.path, export, run_config(hashed))
    model = tf.saved_model.load(export)
    assert sorted(found) == ["movieId", "userId"]
    for name, embedding in found.items():
        np.testing.assert_array_equal(embedding.table, model.tables[name].numpy())
        np.testing.assert_array_equal(embedding.counts, index_counts(data)[name])
        assert embedding.is_hashed == (name in hashed)
        if name not in hashed:
            path = data.manifest.features[name].vocabulary_path
            assert embedding.tokens == Path(data.path, str(path)).read_text().split()


def test_a_table_of_another_dataset_is_left_out(tmp_path: Path) -> None:
    data = make_run(tmp_path / "run")
    # Fewer tokens are rare, so that both tables are larger.
    make_run(tmp_path / "other", frequency_threshold=1)
    other = str(tmp_path / "other" / "model" / "export")
    assert read_embeddings(data.path, other, TrainerConfig()) == {}


def test_hashed_tokens_without_a_number_of_bins(tmp_path: Path) -> None:
    data = make_run(tmp_path, hashed=["userId"])
    assert read_embeddings(data.path, str(tmp_path / "model" / "export"), TrainerConfig()) == {}


@pytest.mark.parametrize("known", ["all", "no metrics.json", "no evaluation"])
def test_the_page_of_a_run(tmp_path: Path, known: str) -> None:
    run = tmp_path / "2026-11-24"
    make_run(run)
    answer: Any = None
    if known != "no evaluation":
        answer = evaluate(EvaluationRequest(str(run), "eval", InputConfig()), no_progress)
    if known == "no metrics.json":
        (run / "model" / "metrics.json").unlink()
    path = run / "report.html"
    export = str(run / "model" / "export")
    write_run_page(str(path), str(run), export, answer and answer.evaluation, {"movieId": {"-7": "Heat"}})
    page = path.read_text()
    assert "<title>Run 2026-11-24</title>" in page
    assert ("Not evaluated yet" in page) == (known == "no evaluation")
    # The model is random, and there are biases to be learned.
    assert ("Do not ship" in page) == (known != "no evaluation")
    assert "movieId" in page and "chart-frequencies" in page


def test_an_export_elsewhere(tmp_path: Path) -> None:
    make_run(tmp_path / "run")
    shutil.move(tmp_path / "run" / "model" / "export", tmp_path / "alone")
    write_run_page(str(tmp_path / "page.html"), str(tmp_path / "run"), str(tmp_path / "alone"), None, {})
    assert "There is no metrics.json" in (tmp_path / "page.html").read_text()
