"""Tokens and codes: from vocabularies, shards and new files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from dotbias.evaluation.evaluate import files_config
from dotbias.evaluation.rows import Rows, number_tokens, read_files, token_array
from dotbias.evaluation.shard_rows import bucket_tokens, read_eval, read_train
from pipeline.config import InputConfig
from pipeline.manifest import DotbiasError
from pipeline.storage.matching import match_input
from pipeline.storage.paths import InputError
from tests.dotbias.evaluation.conftest import EVAL, TRAIN, make_rows, make_run, no_progress
from trainer.data.dataset import Dataset

TOKENS = st.text(st.characters(exclude_characters="\n\r\0", exclude_categories=["Cs"]), min_size=1)


@given(st.lists(TOKENS))
def test_any_vocabulary_file_is_read(tokens: list[str]) -> None:
    assert token_array("".join(f"{token}\n" for token in tokens).encode(), "string").to_pylist() == tokens


@given(st.lists(st.integers(-(2**63), 2**63 - 1)))
def test_integers_too(tokens: list[int]) -> None:
    assert token_array("".join(f"{token}\n" for token in tokens).encode(), "int64").to_pylist() == tokens


@given(st.lists(st.lists(st.sampled_from("abcdefg"))), st.lists(st.sampled_from("abcde"), unique=True))
def test_a_code_is_the_place_of_its_token(chunks: list[list[str]], known: list[str]) -> None:
    arrays = [pa.array(chunk, pa.string()) for chunk in chunks]
    for given_known in (None, pa.array(known, pa.large_string())):
        codes, ids = number_tokens(arrays, "string", given_known)
        tokens = ids.tokens.to_pylist()
        assert [tokens[code] for code in codes] == [token for chunk in chunks for token in chunk]
        assert len(set(tokens)) == len(tokens)
        assert tokens[: ids.known] == (tokens if given_known is None else known)


@pytest.mark.parametrize("dtype", ["int64", "string"])
def test_a_token_for_each_bucket(dtype: str) -> None:
    taken = [-(2**63)] if dtype == "int64" else ["out of vocabulary 0"]
    tokens = pa.array(taken, pa.int64() if dtype == "int64" else pa.large_string())
    found = bucket_tokens(tokens, dtype, 20).to_pylist()
    assert tf.strings.to_hash_bucket_fast([str(token) for token in found], 20).numpy().tolist() == list(range(20))
    assert not set(found) & set(taken)


def tokens_of(rows: Rows, name: str) -> list[object]:
    tokens = rows.ids[name].tokens.to_pylist()
    return [tokens[code] for code in rows.codes[name]]


@pytest.mark.parametrize("hashed", [[], ["userId"], ["userId", "movieId"]])
def test_shards_give_the_tokens_back(tmp_path: Path, hashed: list[str]) -> None:
    data = make_run(tmp_path, hashed=hashed)
    train = read_train(data, no_progress)
    evaluation = read_eval(data, train, no_progress)
    for rows, raw in ((train, TRAIN), (evaluation, EVAL)):
        np.testing.assert_allclose(rows.labels, raw["label"], rtol=1e-6)
        for name in ("userId", "movieId"):
            known = rows.known(name)
            assert known.any()
            got, wanted = np.array(tokens_of(rows, name), object), np.array(raw[name], object)
            assert (got == wanted)[known | rows.identified(name)].all()
            # An id outside the vocabulary has a token of its bucket, and no name.
            assert not (got == wanted)[~rows.identified(name)].any()
            assert rows.identified(name).all() == (name in hashed)
    assert not evaluation.known("userId").all()


def test_new_files_are_numbered_like_the_dataset(run: Path) -> None:
    data = Dataset(str(run / "dataset"), _manifest(run), {})
    train = read_train(data, no_progress)
    (run / "new.csv").write_text("rating,movieId,userId\n1,-7,3\n0.25,123456,3\nx,1,1\n1,,1\n2,-7,4\n1,123456,777\n")
    known = {name: ids.tokens[: ids.known] for name, ids in train.ids.items()}
    config = files_config(data.manifest, InputConfig())
    rows = read_files(match_input([str(run / "new.csv")]), config, data.manifest, known, no_progress)
    assert tokens_of(rows, "userId") == [3, 3, 777]
    assert tokens_of(rows, "movieId") == [-7, 123456, 123456]
    assert rows.labels.tolist() == [1, 0.25, 1]
    assert rows.known("userId").tolist() == [True, True, False]
    # New ones have names, and are counted by them.
    assert len(np.unique(rows.clusters("movieId"))) == 2
    assert rows.rejected_by_reason == {
        "rating: not a number": 1,
        "movieId: empty": 1,
        "rating: the label it makes is not in [0, 1]": 1,
    }


def _manifest(run: Path):  # type: ignore[no-untyped-def]
    from pipeline.manifest import read_manifest

    return read_manifest(str(run / "dataset"))


@pytest.mark.parametrize(
    ("content", "kind", "part"),
    [
        ("", DotbiasError, "no row to evaluate"),
        ("userId,movieId,rating\n", DotbiasError, "no row to evaluate"),
        ("userId,movieId,rating\nx,1,1\n", DotbiasError, "1 rows were rejected, mostly for: userId: not an int64"),
        ("userId,rating\n1,1\n", InputError, "has no column 'movieId'"),
    ],
)
def test_files_without_rows_or_columns(run: Path, content: str, kind: type[Exception], part: str) -> None:
    (run / "new.csv").write_text(content)
    manifest = _manifest(run)
    with pytest.raises(kind, match=part):
        read_files(
            match_input([str(run / "new.csv")]), files_config(manifest, InputConfig()), manifest, {}, no_progress
        )


def test_rows_out_of_vocabulary_are_users_of_their_own() -> None:
    rows = make_rows({"u": [0, 1, 2, 2, 0]}, known={"u": 2}, named=False)
    assert rows.clusters("u").tolist()[:2] == [0, 1]
    assert len(np.unique(rows.clusters("u"))) == 4
    assert rows.identified("u").tolist() == [True, True, False, False, True]


def test_a_damaged_shard_is_named(run: Path) -> None:
    shard = sorted((run / "dataset" / "train").iterdir())[0]
    shard.write_bytes(shard.read_bytes()[:-9] + b"123456789")
    with pytest.raises(DotbiasError, match=f"{shard.name}.*checksum"):
        read_train(Dataset(str(run / "dataset"), _manifest(run), {}), no_progress)
