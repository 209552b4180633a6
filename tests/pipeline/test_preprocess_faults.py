"""Makes the job go wrong: no manifest, a message that says why, and the next attempt is whole."""

from __future__ import annotations

import gzip
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import pipeline.preprocess
from pipeline.config import PipelineConfig
from pipeline.input import kept_batches
from pipeline.manifest import DotbiasError
from pipeline.storage.paths import InputError
from tests.pipeline.preprocessing import FN_API_RUNNER, HEADER, config, contents, make, ratings, top_level, write_log

ROOT = Path(__file__).resolve().parents[2]


def fails(dataset: Path, options: PipelineConfig, message: str) -> None:
    """Checks that the job ends with this message and without a manifest."""
    with pytest.raises(DotbiasError) as error:
        make(dataset, options)
    assert message in str(error.value)
    assert not (dataset / "manifest.json").exists()


@pytest.mark.parametrize(
    ("text", "fields", "message"),
    [
        ("", {}, "log.csv; 0 bytes"),
        (HEADER, {}, "log.csv; 32 bytes"),
        (HEADER + "1,2,9,3\n", {"max_rejected_fraction": 1}, "no row is left to train on: 1 read, 1 rejected"),
        (
            HEADER + "1,2,3,4\n1,6,3,8\n",
            {
                "split": {"eval_fraction": 0},
                "features": {"userId": {"side": "user"}, "movieId": {"side": "item", "frequency_threshold": 2}},
            },
            "feature 'movieId': no token occurs 2 times",
        ),
        ("user,movieId,rating,timestamp\n1,2,3,4\n", {}, "the header has no column 'userId'"),
    ],
)
def test_an_input_without_a_dataset_in_it(tmp_path: Path, text: str, fields: dict[str, Any], message: str) -> None:
    path = tmp_path / "log.csv"
    path.write_text(text)
    fails(tmp_path / "dataset", config([path], **fields), message)


def test_too_many_rejected_rows(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text(HEADER + "".join(ratings(1000, seed=1)) + "1,x,3,4\n" * 11)
    message = "11 of 1,011 rows are rejected, more than `pipeline.max_rejected_fraction` 0.01 allows. Most often (11): "
    fails(tmp_path / "dataset", config([path], max_rejected_fraction=0.01), message + "movieId: not an int64, as in")
    # They are there to be looked at.
    (rejected,) = (tmp_path / "dataset").glob(".tmp/*/rejected/*")
    assert rejected.read_text().count("1,x,3,4") == 11
    # And a second start after repair works.
    path.write_text(HEADER + "".join(ratings(1000, seed=1)))
    assert make(tmp_path / "dataset", config([path])).counts.rejected == 0
    assert not list((tmp_path / "dataset").glob("**/rejected"))


def change_between_passes(monkeypatch: pytest.MonkeyPatch, path: Path, text: str) -> None:
    plan_layout = pipeline.preprocess.plan_layout

    def change_and_plan(*arguments: Any) -> Any:
        path.write_text(text)
        return plan_layout(*arguments)

    monkeypatch.setattr(pipeline.preprocess, "plan_layout", change_and_plan)


@pytest.mark.parametrize(
    "change",
    [
        lambda lines: [*lines, "1,2,3,4\n"],
        pytest.param(lambda lines: lines[:-1], marks=pytest.mark.slow),
        # As long as before.
        lambda lines: [line.replace(",1.0,", ",5.0,") for line in lines],
        lambda lines: [*lines[:-1], "x" * (len(lines[-1]) - 1) + "\n"],
    ],
    ids=["appended", "cut", "other ratings", "a bad row"],
)
@pytest.mark.parametrize("kept_bytes", [0, pytest.param(1 << 20, marks=pytest.mark.slow)], ids=["read twice", "kept"])
def test_an_input_that_changes_between_the_passes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Any, kept_bytes: int
) -> None:
    monkeypatch.setattr(kept_batches, "KEPT_BYTES", kept_bytes)
    path = tmp_path / "log.csv"
    lines = ratings(500, seed=1)
    path.write_text(HEADER + "".join(lines))
    options = config([path], max_rejected_fraction=0.5)
    with monkeypatch.context() as patch:
        change_between_passes(patch, path, HEADER + "".join(change(lines)))
        fails(tmp_path / "dataset", options, "log.csv")


# Midnight.
UNTIL = 1_800_057_600


@pytest.mark.slow
@pytest.mark.parametrize("counts", [None, "counts"], ids=["all files are read", "counts are kept"])
@pytest.mark.parametrize("is_left_out", [True, False])
def test_a_file_that_grows_where_the_window_leaves_it_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, counts: str | None, is_left_out: bool
) -> None:
    """The log of today, of which a line is half written."""
    log, today = tmp_path / "log", tmp_path / "log" / "today.csv"
    log.mkdir()
    (log / "before.csv").write_text(HEADER + "".join(ratings(500, seed=1)))
    # One row may lie in the window.
    first = UNTIL if is_left_out else UNTIL - 1
    begun = HEADER + f"1,2,3.0,{first}\n" + f"1,2,3.0,{UNTIL}\n" * 50
    today.write_text(begun)
    options = config(
        [log / "*"],
        window={"until": UNTIL},
        split={"method": "time", "since": 1_400_025_600},
        counts_cache=None if counts is None else str(tmp_path / counts),
    )
    with monkeypatch.context() as patch:
        change_between_passes(patch, today, begun + f"1,2,3.0,{UNTIL}\n" * 50 + "1,2")
        if not is_left_out:
            fails(tmp_path / "dataset", options, "today.csv has changed since the job began")
            return
        manifest = make(tmp_path / "dataset", options)
    assert (manifest.counts.read, manifest.counts.out_of_window) == (551, 51)
    assert [file.in_window for file in manifest.input] == [True, False]
    # While it grows on, the dataset is still that of this log.
    today.write_text(begun + f"1,2,3.0,{UNTIL}\n" * 100)
    assert make(tmp_path / "dataset", options) == manifest
    # What shrinks has been replaced.
    today.write_text(HEADER)
    with pytest.raises(DotbiasError, match=r"was made from another input: .*today\.csv"):
        make(tmp_path / "dataset", options)


def test_an_input_that_vanishes(tmp_path: Path) -> None:
    options = config([tmp_path / "log.csv"])
    with pytest.raises(InputError, match="matches no file"):
        make(tmp_path / "dataset", options)
    assert not (tmp_path / "dataset").exists()


def test_a_damaged_gzip(tmp_path: Path) -> None:
    path = tmp_path / "log.csv.gz"
    path.write_bytes(gzip.compress((HEADER + "".join(ratings(3000, seed=1))).encode())[:-20])
    fails(tmp_path / "dataset", config([path]), f"{path} cannot be read to its end")


RUN = """
import sys
from pipeline.config import PipelineConfig
from pipeline.preprocess import preprocess
preprocess(sys.argv[1], PipelineConfig.model_validate_json(sys.argv[2]), [sys.argv[3]])
"""


@pytest.mark.slow
def test_killed_at_many_moments(tmp_path: Path) -> None:
    log, dataset = write_log(tmp_path / "log"), tmp_path / "undisturbed"
    make(dataset, config(log))
    again, draw = tmp_path / "dataset", random.Random(5)
    command = [sys.executable, "-c", RUN, str(again), config(log).model_dump_json(), FN_API_RUNNER]
    signs = ["tmp", "rejected/*", "vocabulary/*", "vocabulary/movieId.txt", "transform_fn", "train/*", "eval/*"]
    signs = [f".tmp/*/{sign}" for sign in signs]
    # While it is published.
    signs += ["eval/*", "train/*", "vocabulary/*"]
    unfinished = 0
    for sign in signs:
        marker = tmp_path / "started"
        marker.touch()
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            # Until the attempt has come so far, and a moment longer.
            while process.poll() is None and not any(newer(path, marker) for path in again.glob(sign)):
                time.sleep(0.002)
            time.sleep(draw.uniform(0, 0.005))
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
        if (again / "manifest.json").exists():
            # Too late, but then it is whole.
            assert contents(again) == contents(dataset)
            shutil.rmtree(again)
        else:
            unfinished += 1
    assert unfinished >= 4
    make(again, config(log))
    assert contents(again) == contents(dataset)
    assert top_level(again) == top_level(dataset)


def newer(path: Path, marker: Path) -> bool:
    try:
        return path.stat().st_mtime_ns > marker.stat().st_mtime_ns
    except FileNotFoundError:
        return False
