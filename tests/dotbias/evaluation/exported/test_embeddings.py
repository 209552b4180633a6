"""Checks neighbours and norms on tables whose answers are known."""

from __future__ import annotations

import dataclasses

import numpy as np

from dotbias.evaluation.exported.embeddings import Embedding, neighbours, norms
from dotbias.evaluation.report.sections.embeddings import medians

# Directions east, north-east, north, west; the last unit is a bias and belongs to no direction.
TABLE = np.array([[1, 0, 9], [2, 2, -9], [0, 0.5, 9], [-3, 0, 9], [1, 1, 0]], np.float32)
EMBEDDING = Embedding(
    side="item",
    counts=np.array([50, 40, 30, 20, 7], np.float32),
    table=TABLE,
    vocabulary_size=4,
    tokens=["east", "north-east", "north", "west"],
)


def test_nearest_by_direction_whatever_the_length_and_the_bias() -> None:
    found = neighbours(EMBEDDING, [0, 1], top_k=2, least_count=1)
    assert [(n.token, n.count) for n in found[0]] == [("north-east", 40), ("north", 30)]
    np.testing.assert_allclose([n.cosine for n in found[0]], [np.sqrt(0.5), 0], atol=1e-6)
    # A tie is broken by frequency, and no token is its own neighbour.
    assert [n.token for n in found[1]] == ["east", "north"]


def test_rare_ids_have_neighbours_and_are_none() -> None:
    found = neighbours(EMBEDDING, [0, 3], top_k=9, least_count=30)
    assert [n.token for n in found[0]] == ["north-east", "north"]
    assert [n.token for n in found[3]] == ["north", "north-east", "east"]


def test_vectors_of_no_length() -> None:
    still = dataclasses.replace(EMBEDDING, table=np.zeros_like(TABLE))
    assert [n.cosine for n in neighbours(still, [2], top_k=2, least_count=1)[2]] == [0, 0]


def test_a_vocabulary_of_one() -> None:
    alone = dataclasses.replace(EMBEDDING, vocabulary_size=1, tokens=["east"])
    assert neighbours(alone, [0], top_k=5, least_count=1) == {0: []}


def test_norms_leave_the_bias_out() -> None:
    np.testing.assert_allclose(norms(TABLE), [1, np.sqrt(8), 0.5, 3, np.sqrt(2)], rtol=1e-6)


def test_counts_of_what_has_a_row() -> None:
    assert EMBEDDING.known_counts.tolist() == [50, 40, 30, 20]
    hashed = dataclasses.replace(EMBEDDING, vocabulary_size=0, tokens=[], counts=np.array([0, 3, 9], np.float32))
    assert hashed.known_counts.tolist() == [9, 3]


def test_medians_of_bins() -> None:
    # One in the middle is too few.
    counts = np.array([1, 1, 1, 30, 1000, 1000, 1000], np.float32)
    x, median = medians(counts, np.array([1.0, 2.0, 9.0, 4.0, 5.0, 6.0, 7.0]))
    np.testing.assert_allclose(x, [1, 1000])
    assert median.tolist() == [2, 6]
    # Ids that all occur equally often.
    x, median = medians(np.full(3, 4, np.float32), np.arange(3.0))
    np.testing.assert_allclose(x, [4])
    assert median.tolist() == [1]
    # Fewer ids than that have a median all the same.
    assert medians(np.ones(2, np.float32), np.array([1.0, 2.0]))[1].tolist() == [1.5]
