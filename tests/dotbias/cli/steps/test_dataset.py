from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import pipeline.preprocess
from dotbias.cli.main import main
from pipeline.beam.submission import Submission
from tests.pipeline.preprocessing import HEADER, ratings


@pytest.mark.parametrize("flags", [[], ["--direct_running_mode=multi_threading"]])
def test_the_log_is_read_while_the_job_is_imported_if_it_runs_in_one_thread(
    flags: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "log.csv"
    log.write_text(HEADER + "".join(ratings(1000, seed=1)))
    calls = []

    def preprocess(*arguments: Any) -> Submission:
        calls.append(arguments)
        return Submission(job_id=None)

    monkeypatch.setattr(pipeline.preprocess, "preprocess", preprocess)
    given = ["--config", "movielens", "--input", str(log), "--output_root", str(tmp_path / "out")]
    assert main(["preprocess", *given, *flags]) == 0
    ((*_, kept),) = calls
    assert [file.path for file in kept.files] == [str(log)] if not flags else kept is None
