"""Runs each step that writes once more, as a runner does when a worker is lost before it has reported the result."""

from __future__ import annotations

import functools
import os
import random
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tensorflow_transform.tf_metadata import metadata_io

from pipeline.manifest import DotbiasError
from pipeline.output import rejected, shards, transform_fn
from pipeline.output.manifest_writer import WriteManifest
from pipeline.vocabulary import counting, frequency
from tests.pipeline.preprocessing import config, contents, make, top_level, write_log

STEPS: list[tuple[Any, str]] = [
    (counting, "_write_tokens"),
    (counting, "_write_entry"),
    (frequency.FrequencyVocabulary, "_write"),
    (rejected.WriteRejected, "_write"),
    (transform_fn, "_copy_graph"),
    (metadata_io, "write_metadata"),
    (shards._WriteFiles, "_write"),
    (WriteManifest, "_write"),
]


class LostWorkers:
    """Lets the first try of a step end at a seeded moment: when it renames a file, or after all of its work."""

    def __init__(self, seed: int) -> None:
        self.tries: Counter[str] = Counter()
        self.ended_early = 0
        self._draw = random.Random(seed)
        # Steps run in threads.
        self._renames_left = threading.local()
        self._lock = threading.Lock()
        self._replace = os.replace

    def rename(self, source: str, target: str) -> None:
        left = getattr(self._renames_left, "number", None)
        if left == 0:
            raise OSError("the machine is lost")
        if left is not None:
            self._renames_left.number = left - 1
        self._replace(source, target)

    def retry(self, name: str, step: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(step)
        def twice(*arguments: Any) -> Any:
            with self._lock:
                self.tries[name] += 1
                self._renames_left.number = self._draw.randrange(4)
            try:
                step(*arguments)
            except DotbiasError as error:
                assert "the machine is lost" in str(error)
                self.ended_early += 1
            finally:
                self._renames_left.number = None
            return step(*arguments)

        return twice


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_a_retry_of_each_step_that_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    log = write_log(tmp_path / "log")
    # With the steps that keep the counts of files.
    split = {"method": "time", "since": 1_399_939_200}

    def options(name: str) -> Any:
        cache = str(tmp_path / f"counts of {name}")
        return config(log, split=split, counts_cache=cache, max_rejected_fraction=0.1)

    make(tmp_path / "undisturbed", options("undisturbed"))
    lost = LostWorkers(seed)
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", lost.rename)
        for owner, name in STEPS:
            patch.setattr(owner, name, lost.retry(f"{owner.__name__}.{name}", getattr(owner, name)))
        make(tmp_path / "disturbed", options("disturbed"))
    assert lost.tries.keys() == {f"{owner.__name__}.{name}" for owner, name in STEPS}
    assert lost.ended_early > 3
    undisturbed, disturbed = (
        {name: data for name, data in contents(tmp_path / made).items() if name != "manifest.json"}
        for made in ("undisturbed", "disturbed")
    )
    assert disturbed == undisturbed
    assert top_level(tmp_path / "disturbed") == top_level(tmp_path / "undisturbed")
    for name in ("transform_fn", "transformed_metadata"):
        of_one, of_other = (
            {str(path.relative_to(tmp_path / made)) for path in (tmp_path / made / name).rglob("*")}
            for made in ("undisturbed", "disturbed")
        )
        assert of_one == of_other and len(of_one) > 0
    # With kept counts, another dataset is the same.
    again = options("disturbed")
    make(tmp_path / "again", again)
    assert {name: data for name, data in contents(tmp_path / "again").items() if name != "manifest.json"} == undisturbed
