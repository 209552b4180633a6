"""Tests the population stability index of vocabularies."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from dotbias.retraining.drift import _lines, psi, psi_of_vocabularies


def vocabulary(**counts: int) -> tuple[pa.Array, np.ndarray]:
    return pa.array(list(counts)), np.array(list(counts.values()), np.int64)


def test_the_same_frequencies_have_no_shift_whatever_the_number_of_rows() -> None:
    old, twice = vocabulary(a=50, b=30, c=20), vocabulary(a=100, b=60, c=40)
    assert psi_of_vocabularies(old, twice, 10, 20) == pytest.approx(0)


def test_a_token_that_takes_the_rows_of_another_is_a_shift() -> None:
    old, new = vocabulary(a=60, b=40), vocabulary(b=60, a=40)
    expected = 2 * (0.6 - 0.4) * np.log(0.6 / 0.4)
    assert psi_of_vocabularies(old, new, 0, 0) == pytest.approx(expected)


def test_new_tokens_count_with_the_rows_out_of_the_vocabulary() -> None:
    old = vocabulary(a=80)
    assert psi_of_vocabularies(old, vocabulary(a=80, z=20), 20, 0) == pytest.approx(0)
    assert psi_of_vocabularies(old, vocabulary(z=100), 20, 0) > 1


def test_an_empty_vocabulary_has_no_shift() -> None:
    assert psi_of_vocabularies(vocabulary(), vocabulary(a=1), 10, 10) == 0


def test_psi_is_symmetric_and_not_negative() -> None:
    random = np.random.default_rng(0)
    for _ in range(20):
        before, after = random.integers(0, 50, (2, 10)) + 1
        assert psi(before, after) == pytest.approx(psi(after, before))
        assert psi(before, after) >= 0


def test_tokens_may_hold_anything_but_a_line_end(tmp_path: Path) -> None:
    tokens = ["a,b", '"', "NULL", " x ", "ü"]
    (tmp_path / "tokens.txt").write_text("".join(f"{token}\n" for token in tokens))
    assert _lines(str(tmp_path / "tokens.txt"), pa.string()).to_pylist() == tokens
    (tmp_path / "empty.txt").write_text("")
    assert len(_lines(str(tmp_path / "empty.txt"), pa.int64())) == 0
