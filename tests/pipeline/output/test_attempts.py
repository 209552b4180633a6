from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.output import attempts
from pipeline.output.attempts import delete_ended_attempts


@pytest.mark.parametrize(
    ("names", "left"),
    [
        (["local-1", "local-2"], set()),
        # The job of a service may still run.
        (["local-1", "job-1"], {"job-1"}),
        ([], set()),
    ],
)
def test_attempts_of_processes_that_have_ended_are_deleted(tmp_path: Path, names: list[str], left: set[str]) -> None:
    for name in names:
        (tmp_path / ".tmp" / name / "train").mkdir(parents=True)
    delete_ended_attempts(str(tmp_path))
    assert {path.name for path in (tmp_path / ".tmp").glob("*")} == left


def test_without_a_lock_no_attempt_is_deleted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another start may be writing it."""
    deleted: list[str] = []
    monkeypatch.setattr(attempts, "list_directories", lambda directory: ["local-1"])
    monkeypatch.setattr(attempts, "delete_tree", deleted.append)
    delete_ended_attempts("s3://bucket/dataset")
    assert deleted == []
    delete_ended_attempts("gs://bucket/dataset")
    assert deleted == ["gs://bucket/dataset/.tmp"]
