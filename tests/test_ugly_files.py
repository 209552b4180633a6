"""Runs `--stage preprocess` on files with faults that occur in practice."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import os
import random
import re
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
import zstandard

ROOT = Path(__file__).resolve().parents[1]
HEADER = b"user,item,rating,time\n"
GOOD = b"".join(b"%d,item %d,%d,%d\n" % (n % 9, n % 7, n % 6, n) for n in range(60))
GOOD_ROWS = 60
BOM = b"\xef\xbb\xbf"

# name, content, good rows, reasons of the rejected ones
FILES: list[tuple[str, bytes, int, list[str]]] = [
    ("plain.csv", HEADER + GOOD, GOOD_ROWS, []),
    ("empty.csv", b"", 0, []),
    ("header only.csv", HEADER, 0, []),
    ("no last line end.csv", HEADER + GOOD.rstrip(), GOOD_ROWS, []),
    ("crlf.csv", (HEADER + GOOD).replace(b"\n", b"\r\n"), GOOD_ROWS, []),
    ("bom.csv", BOM + HEADER + GOOD, GOOD_ROWS, []),
    ("empty lines.csv", b"\n\n" + HEADER + GOOD.replace(b"\n", b"\n\n\r\n"), GOOD_ROWS, []),
    ("other columns.csv", b"x,time,rating,y,item,user\n" + b"?,5,3,,a,1\n" * 3, 3, []),
    ("quoted.csv", HEADER + b'"1","a ""b"", c","3.0","5"\n', 1, []),
    ("gzip without its name.csv", gzip.compress(HEADER + GOOD), GOOD_ROWS, []),
    ("two members.csv.gz", gzip.compress(HEADER + GOOD) + gzip.compress(GOOD), 2 * GOOD_ROWS, []),
    ("bzip2.csv.bz2", bz2.compress(HEADER + GOOD), GOOD_ROWS, []),
    ("zstd.csv.zst", zstandard.compress(HEADER + GOOD), GOOD_ROWS, []),
    (
        "columns.csv",
        HEADER + b"1,a,3\n1,a,3,5,9\n \n" + GOOD,
        GOOD_ROWS,
        ["wrong number of columns"] * 3,
    ),
    (
        "numbers.csv",
        HEADER + b"x,a,3,5\n1.5,a,3,5\n99999999999999999999,a,3,5\n1,a,three,5\n1,a,3,now\n" + GOOD,
        GOOD_ROWS,
        ["user: not an int64"] * 2 + ["user: an integer beyond 64 bits", "rating: not a number", "time: not an int64"],
    ),
    (
        "empty values.csv",
        HEADER + b',a,3,5\n1,,3,5\n1,"",3,5\n1,a,,5\n' + GOOD,
        GOOD_ROWS,
        ["user: empty", "item: empty", "item: empty", "rating: empty"],
    ),
    (
        "labels.csv",
        HEADER + b"1,a,5.01,5\n1,a,-1,5\n1,a,nan,5\n1,a,inf,5\n" + GOOD,
        GOOD_ROWS,
        ["rating: the label it makes is not in [0, 1]"] * 4,
    ),
    ("latin 1.csv", HEADER + b"1,caf\xe9,3,5\n" + GOOD, GOOD_ROWS, ["item: not UTF-8"]),
    ("nul.csv", HEADER + b"1,a\0b,3,5\n" + GOOD, GOOD_ROWS, ["item: a NUL byte"]),
    (
        "open quote.csv",
        HEADER + b'1,"a,3,5\n' + GOOD + b'1,a,3,"5\n',
        GOOD_ROWS,
        ["a quote that is not closed in its line"] * 2,
    ),
    ("carriage return.csv", HEADER + b"1,a\rb,3,5\n" + GOOD, GOOD_ROWS, ["a carriage return within the line"]),
]


def configuration(directory: Path) -> Path:
    path = directory / "ugly.yaml"
    path.write_text(
        yaml.safe_dump(
            {
                "pipeline": {
                    "columns": {"user": "int64", "item": "string", "rating": "float32", "time": "int64"},
                    "label": {"column": "rating", "scale": [0.0, 5.0]},
                    "features": {"user": {"side": "user"}, "item": {"side": "item"}},
                    "timestamp_column": "time",
                    "max_rejected_fraction": 0.5,
                },
                "trainer": {},
            }
        )
    )
    return path


def preprocess(
    directory: Path, *inputs: Path, before: Callable[[], None] | None = None
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "run_pipeline.py"), "--stage=preprocess", "--run_id=ugly"]
    paths = ["--config", str(configuration(directory)), "--output_root", str(directory / "out"), "--input", *inputs]
    # As in a shell, where nobody asks TensorFlow for more.
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    return subprocess.run(
        [*command, *map(str, paths)], capture_output=True, text=True, cwd=directory, env=environment, preexec_fn=before
    )


def test_each_line_is_a_row_or_rejected_with_its_reason(tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    logs.mkdir()
    for name, content, _, _ in FILES:
        (logs / name).write_bytes(content)
    done = preprocess(tmp_path, logs / "*")
    assert done.returncode == 0, done.stderr
    dataset = tmp_path / "out/runs/ugly/dataset"
    counts = json.loads((dataset / "manifest.json").read_text())["counts"]
    assert counts["train"] + counts["eval"] == sum(good for _, _, good, _ in FILES)
    assert counts["rejected"] == sum(len(reasons) for *_, reasons in FILES)
    rejected: dict[str, list[str]] = {}
    for part in sorted(dataset.glob("rejected/*")):
        text = part.read_bytes().decode("utf-8", "surrogateescape")
        for row in sorted(csv.DictReader(io.StringIO(text, newline="")), key=lambda row: int(row["offset"])):
            name = Path(row["file"]).name
            rejected.setdefault(name, []).append(row["reason"])
            # The text is that of the file, byte by byte.
            content = next(content for file, content, _, _ in FILES if file == name)
            assert content[int(row["offset"]) :].startswith(row["text"].encode("utf-8", "surrogateescape"))
    assert rejected == {name: reasons for name, _, _, reasons in FILES if reasons}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.write_bytes(gzip.compress(HEADER + GOOD)[:-9]), "cannot be read to its end"),
        (lambda path: path.write_bytes(b"who,what\n1,2\n"), "the header has no column 'item'. It reads: 'who,what'"),
        (lambda path: path.write_bytes(b"a" * 100 + b"\n" + GOOD), "the header has no column"),
        (lambda path: path.write_bytes(HEADER), "the input has no rows"),
        (lambda path: path.touch(), "log.csv; 0 bytes."),
        pytest.param(
            lambda path: path.write_bytes(HEADER + b"1,a\n2,b\n1,a,3,5\n"),
            "2 of 3 rows are rejected",
            marks=pytest.mark.slow,
        ),
        (lambda path: path.mkdir(), "is a directory; name its files"),
    ],
    ids=["truncated", "other header", "no header", "no rows", "empty", "mostly bad", "directory"],
)
def test_one_line_says_what_is_wrong_and_nothing_looks_complete(
    tmp_path: Path, make: Callable[[Path], object], message: str
) -> None:
    path = tmp_path / "log.csv"
    make(path)
    done = preprocess(tmp_path, path)
    # What the first rows of the first file show is found before the job, as a mistake in the command.
    assert done.returncode == (1 if "rows are rejected" in message else 2)
    (line,) = [line for line in done.stderr.splitlines() if not line.startswith("INFO")]
    assert message in line
    assert "log.csv" in line
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out/runs/ugly/dataset/manifest.json").exists()


@pytest.mark.slow
def test_a_full_disk_and_then_room(tmp_path: Path) -> None:
    """Limits the size of files, which has the effect of a disk that is full when shards are written."""
    path = tmp_path / "log.csv"
    draws = random.Random(5)
    rows = (f"{draws.randrange(10**9)},item {n % 9},{n % 6},{draws.randrange(10**9)}\n" for n in range(150_000))
    path.write_text(HEADER.decode() + "".join(rows))

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000))

    full = preprocess(tmp_path, path, before=limit)
    assert full.returncode == 1
    assert full.stderr.splitlines()[-1].endswith("cannot be written: File too large. Fix this and rerun.")
    dataset = tmp_path / "out/runs/ugly/dataset"
    assert not (dataset / "manifest.json").exists()
    done = preprocess(tmp_path, path)
    assert done.returncode == 0, done.stderr
    assert json.loads((dataset / "manifest.json").read_text())["counts"]["read"] == 150_000
    assert not (dataset / ".tmp").exists()


def documented() -> dict[str, Any]:
    """The configuration that docs/own_data.md shows for such a log."""
    page = (ROOT / "docs" / "own_data.md").read_text()
    (block,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    configuration: dict[str, Any] = yaml.safe_load(block)
    return configuration


def with_more_options(configuration: dict[str, Any]) -> dict[str, Any]:
    """Adds what a log of this kind may need besides."""
    pipeline = configuration["pipeline"]
    pipeline["columns"]["device"] = "int64"
    pipeline["features"]["country"]["encoding"] = "hashing"
    pipeline["features"]["device"] = {"side": "user"}
    pipeline |= {"window": {"since": "2026-02-01"}, "duplicates": "last", "rows_per_shard": 1000}
    pipeline["split"] = {"method": "time", "since": "2026-03-01"}
    trainer = {"embedding_dim": 4, "epochs": 1, "refit": False, "hashing": {"country": {"num_bins": 50}}}
    return {"pipeline": pipeline, "trainer": trainer}


QUESTION = """
import sys
import tensorflow as tf
predict = tf.saved_model.load(sys.argv[1]).signatures["serving_default"]
known, missing = [
    predict(userId=["u1"], itemId=["m1"], country=[country], device=tf.constant([device], tf.int64), label=[label])
    for country, device, label in (("de", 7, "rock"), ("(missing)", -1, "(missing)"))
]
print(float(known["probability"][0]), float(missing["probability"][0]))
"""


@pytest.mark.slow
def test_a_log_with_iso_times_empty_values_and_a_feature_called_label(tmp_path: Path) -> None:
    """Goes from CSV to the report, an evaluation of new files and a prediction of the export."""
    draws = random.Random(3)
    times = ("2026-{:02d}-{:02d}", "2026-{:02d}-{:02d}T12:00:00Z", "2026-{:02d}-{:02d} 08:30:01.5+02:00")
    lines = [
        f"u{draws.randrange(60)},m{draws.randrange(50)},{draws.choice(['de', 'fr', ''])},{draws.choice(['', '7'])},"
        f"{draws.choice(['pop', 'rock', ''])},{draws.randrange(2)},"
        f"{draws.choice(times).format(1 + row // 700, 1 + draws.randrange(28))}\n"
        for row in range(2100)
    ]
    (tmp_path / "log.csv").write_text("userId,itemId,country,device,label,clicked,at\n" + "".join(lines))
    # The order of the features says which is the id of its side.
    (tmp_path / "real.yaml").write_text(yaml.safe_dump(with_more_options(documented()), sort_keys=False))

    def run(*arguments: object) -> None:
        command = [sys.executable, *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 0, done.stderr

    flags = ("--config", "real.yaml", "--input", "log.csv", "--run_id", "real")
    run(ROOT / "run_pipeline.py", *flags)
    out = tmp_path / "out/runs/real"
    manifest = json.loads((out / "dataset/manifest.json").read_text())
    counts = manifest["counts"]
    assert (counts["read"], counts["rejected"], counts["out_of_window"]) == (2100, 0, 700)
    assert counts["train"] + counts["duplicates"] > 0 < counts["eval"]
    assert {"(missing)", "pop", "rock"} == set((out / "dataset/vocabulary/label.txt").read_text().split())
    assert {"-1", "7"} == set((out / "dataset/vocabulary/device.txt").read_text().split())
    shard = gzip.decompress(next((out / "dataset/eval").glob("*")).read_bytes()).decode()
    assert '"(missing)"' in shard
    assert all(int(line.split(",")[-1]) >= 1_772_323_200_000_000 for line in shard.splitlines())
    assert (out / "report.html").exists()
    run(ROOT / "run_pipeline.py", *flags, "--stage", "evaluate")
    (tmp_path / "ask.py").write_text(QUESTION)
    run("ask.py", out / "model/export")
