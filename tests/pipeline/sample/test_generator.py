"""Tests the generator of interactions: equal options give equal bytes, and the best possible AUC is right."""

from __future__ import annotations

import gzip
import math
from pathlib import Path

import numpy as np
import pyarrow.csv
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from pipeline.config import SampleConfig
from pipeline.sample import generator as sample
from pipeline.sample.auc import StreamingAuc
from pipeline.sample.generator import TrueModel, main, write_sample

CONFIG = SampleConfig(rows=20_000, users=500, items=100, seed=7)


def write(path: Path, config: SampleConfig = CONFIG, subset: sample.Subset = "train") -> bytes:
    write_sample(TrueModel(config), str(path), subset, config.rows)
    return path.read_bytes()


def test_the_same_options_give_the_same_bytes(tmp_path: Path) -> None:
    first = write(tmp_path / "a.csv.gz")
    assert write(tmp_path / "b.csv.gz") == first
    assert gzip.decompress(first) == write(tmp_path / "c.csv")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv.gz", "b.csv.gz", "c.csv"]


def test_another_seed_or_part_gives_other_rows(tmp_path: Path) -> None:
    lines = set(write(tmp_path / "a.csv").splitlines()[1:])
    other = CONFIG.model_copy(update={"seed": 8})
    assert len(lines & set(write(tmp_path / "b.csv", other).splitlines())) < 10
    assert len(lines & set(write(tmp_path / "c.csv", subset="test").splitlines())) < 10


def test_chunks_do_not_show(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sample, "_ROWS_PER_CHUNK", 999)
    write(tmp_path / "a.csv")
    table = pyarrow.csv.read_csv(tmp_path / "a.csv")
    assert table.num_rows == CONFIG.rows
    timestamps = table["timestamp"].to_numpy()
    assert (np.diff(timestamps) >= 0).all()
    # The chunks draw from streams of their own.
    users = table["userId"].to_numpy()
    assert (users[:999] != users[999 : 2 * 999]).any()


@pytest.mark.parametrize("token_type", ["int64", "string"])
def test_tokens(token_type: str, tmp_path: Path) -> None:
    config = SampleConfig.model_validate({**CONFIG.model_dump(), "token_type": token_type, "exponent": 0.0})
    lines = write(tmp_path / "a.csv", config).decode().splitlines()
    assert lines[0] == "userId,movieId,clicked,timestamp"
    assert '"' not in "".join(lines)
    users, items, clicked, _ = zip(*(line.split(",") for line in lines[1:]), strict=True)
    # With this many rows and even popularity, each id appears.
    assert len(set(users)) == config.users
    assert len(set(items)) == config.items
    assert set(clicked) == {"0", "1"}
    if token_type == "string":
        assert all(user.startswith("user_") and len(user) == len("user_000123") for user in users)
    else:
        assert len({int(user) for user in users}) == config.users


def test_popularity_follows_the_power_law() -> None:
    config = CONFIG.model_copy(update={"rows": 400_000, "users": 1000, "exponent": 0.8})
    (table, _), *_ = TrueModel(config).chunks("train", config.rows)
    counts = np.sort(np.unique(table["userId"].to_numpy(), return_counts=True)[1])[::-1]
    ranks = np.arange(1, 301)
    slope = np.polyfit(np.log(ranks), np.log(counts[:300]), 1)[0]
    assert slope == pytest.approx(-0.8, abs=0.03)


def test_labels_follow_the_probabilities() -> None:
    config = CONFIG.model_copy(update={"rows": 500_000})
    (table, probabilities), *_ = TrueModel(config).chunks("train", config.rows)
    clicked = table["clicked"].to_numpy()
    for low in (0.0, 0.2, 0.4, 0.6, 0.8):
        inside = (probabilities >= low) & (probabilities < low + 0.2)
        error = math.sqrt(0.25 / inside.sum())
        assert clicked[inside].mean() == pytest.approx(probabilities[inside].mean(), abs=5 * error)


def test_the_ceiling_is_scikit_learns_auc(tmp_path: Path) -> None:
    (table, probabilities), *_ = TrueModel(CONFIG).chunks("train", CONFIG.rows)
    expected = roc_auc_score(table["clicked"].to_numpy(), probabilities)
    written = write_sample(TrueModel(CONFIG), str(tmp_path / "a.csv"), "train", CONFIG.rows)
    assert written.ceiling_auc == pytest.approx(expected, abs=1e-5)
    assert (written.rows, written.positive_rows) == (CONFIG.rows, table["clicked"].to_numpy().sum())


def test_more_signal_raises_the_ceiling(tmp_path: Path) -> None:
    ceilings = [
        write_sample(
            TrueModel(CONFIG.model_copy(update={"signal": signal})), str(tmp_path / "a.csv"), "train", CONFIG.rows
        ).ceiling_auc
        for signal in (0.0, 1.0, 3.0)
    ]
    assert ceilings == sorted(ceilings)
    # Without signal all rows are alike.
    assert ceilings[0] == 0.5


@pytest.mark.slow
@given(st.lists(st.tuples(st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]), st.booleans()), min_size=1), st.integers(1, 5))
def test_streaming_auc(rows: list[tuple[float, bool]], batch: int) -> None:
    probabilities = np.array([probability for probability, _ in rows])
    positive = np.array([label for _, label in rows])
    auc = StreamingAuc()
    for start in range(0, len(rows), batch):
        auc.add(probabilities[start : start + batch], positive[start : start + batch])
    if positive.all() or not positive.any():
        assert math.isnan(auc.result())
    else:
        assert auc.result() == pytest.approx(roc_auc_score(positive, probabilities))


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output, test = tmp_path / "train.csv.gz", tmp_path / "test.csv"
    flags = f"--rows 2000 --users 50 --items 20 --test_rows 100 --output {output} --test_output {test}"
    main(flags.split())
    assert capsys.readouterr().out.count("AUC of the true probabilities 0.") == 2
    assert len(gzip.decompress(output.read_bytes()).splitlines()) == 2001
    assert len(test.read_bytes().splitlines()) == 101


@pytest.mark.parametrize(
    ("flags", "subset"),
    [
        ("--rows 0 --users 1 --items 1", "--rows: should be greater than or equal to 1. Received: 0"),
        ("--rows 1 --users 1 --items 1 --embedding_dim 1", "--embedding_dim: should be greater than or equal to 2."),
        ("--rows 1 --users 1 --items 1 --test_rows 5", "--test_rows and --test_output"),
    ],
)
def test_command_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: str, subset: str) -> None:
    with pytest.raises(SystemExit) as exit_:
        main([*flags.split(), "--output", str(tmp_path / "a.csv")])
    assert exit_.value.code == 2
    assert subset in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
