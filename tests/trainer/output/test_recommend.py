"""Compares the lists of an export with NumPy and the tables."""

from __future__ import annotations

import functools
import json
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import scipy.special
import tensorflow as tf

from tests.trainer.conftest import random_rows
from tests.trainer.datasets import write_dataset
from tests.trainer.output.test_export import trained_like
from trainer.config import TrainerConfig
from trainer.data.dataset import Dataset
from trainer.model.dot_bias import DotBias
from trainer.output.export import export_model, export_with_items
from trainer.output.recommend import NO_SCORE
from trainer.output.warm_up import WARM_UP_PATH, prediction_log

SIDES = {"userId": "user", "movieId": "item"}
SEVERAL = {"userId": "user", "country": "user", "movieId": "item", "genre": "item"}

# Asks each signature in a process that imports TensorFlow alone.
LOAD = """
import json, sys
import tensorflow as tf
model = tf.saved_model.load(sys.argv[1])
answers = []
for name, inputs in json.load(open(sys.argv[2])):
    specs = model.signatures[name].structured_input_signature[1]
    out = model.signatures[name](**{n: tf.constant(v, specs[n].dtype) for n, v in inputs.items()})
    answers.append({n: v.numpy().tolist() for n, v in out.items()})
assert not {"tensorflow_recommenders", "trainer"} & set(sys.modules)
print(json.dumps(answers, default=bytes.decode))
"""


@dataclass(frozen=True)
class Exported:
    """Holds an export that has been moved, and the data to compute its answers from."""

    model: DotBias
    data: Dataset
    export: Path
    rows: dict[str, Any]

    def index(self, name: str, token: Any) -> int:
        feature = self.data.manifest.features[name]
        if name in self.data.num_bins:
            return int(tf.strings.to_hash_bucket_fast([str(token)], self.data.num_bins[name])[0])
        tokens = self.vocabulary(name)
        if str(token) in tokens:
            return tokens.index(str(token))
        return len(tokens) + int(tf.strings.to_hash_bucket_fast([str(token)], feature.num_oov_buckets)[0])

    def order(self, first: str, name: str, token: Any) -> Any:
        return self.index(name, token) if first in self.data.num_bins else str(token)

    def vocabulary(self, name: str) -> list[str]:
        path = self.data.manifest.features[name].vocabulary_path
        return (self.export.parent / "dataset" / str(path)).read_text().splitlines()

    def vector(self, tokens: Mapping[str, Any]) -> npt.NDArray[np.float64]:
        rows = [self.model.tables[name].numpy()[self.index(name, token)] for name, token in tokens.items()]
        # The model adds float32.
        return np.sum(rows, axis=0, dtype=np.float32).astype(np.float64)

    def items(self) -> list[Any]:
        kind = str if isinstance(self.rows["movieId"][0], str) else int
        return [kind(token) for token in self.vocabulary("movieId")]

    def item_vectors(self, items: Sequence[Any]) -> npt.NDArray[np.float64]:
        names = [name for name, side in self.data.sides.items() if side == "item"]
        vectors = []
        for item in items:
            count = Counter(row for row in zip(*(self.rows[name] for name in names), strict=True) if row[0] == item)
            # Of combinations that are as frequent, that of the least text; of bins if the items are hashed.
            best = min(
                count,
                key=lambda row: (-count[row], [self.order(names[0], n, t) for n, t in zip(names, row, strict=True)]),
            )
            vectors.append(self.vector(dict(zip(names, best, strict=True))))
        return np.array(vectors)

    def logits(self, user: npt.NDArray[np.float64], vectors: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
        offset = user[-1] + np.float64(self.model.bias.numpy())
        logits: npt.NDArray[np.float32] = (vectors[:, :-1] @ user[:-1] + vectors[:, -1] + offset).astype(np.float32)
        return logits

    def ask(self, signature: str, **inputs: Any) -> dict[str, Any]:
        serve = loaded(self.export, (self.export / "saved_model.pb").stat().st_mtime_ns).signatures[signature]
        specs = serve.structured_input_signature[1]
        answer = serve(**{name: tf.constant(values, specs[name].dtype) for name, values in inputs.items()})
        return {
            name: np.char.decode(v.numpy().astype(bytes)) if v.dtype == tf.string else v.numpy()
            for name, v in answer.items()
        }


@functools.lru_cache(maxsize=2)
def loaded(export: Path, _: int) -> Any:
    """Keep an export that is asked many times; loading takes longer than an answer."""
    return tf.saved_model.load(str(export))


def best(
    scores: npt.NDArray[np.float32], items: Sequence[Any], without: set[Any], k: int
) -> tuple[list[Any], list[float]]:
    """Returns the first `k` by score, equal ones in the order of the items; filled up as an export does."""
    left = [i for i in np.argsort(-scores, kind="stable") if items[i] not in without][:k]
    filler = "" if isinstance(items[0], str) else -1
    gap = k - len(left)
    return [items[i] for i in left] + gap * [filler], [float(scores[i]) for i in left] + gap * [NO_SCORE]


def make(directory: Path, sides: Mapping[str, str], string_ids: bool, hashed: Sequence[str] = ()) -> Exported:
    rows = random_rows(400, 1, string_ids)
    rng = np.random.default_rng(5)
    if "genre" in sides:
        # Most rows of an item have one genre, and some items have two that are as frequent.
        genre = (np.array([hash_of(item) for item in rows["movieId"]]) + (rng.random(400) < 0.3)) % 5
        rows = {**rows, "country": [f"c{i}" for i in rng.integers(0, 6, 400)], "genre": [f"g{i}" for i in genre]}
    write_dataset(directory / "dataset", rows, {**rows}, sides, hashed=hashed, frequency_threshold=8, num_oov_buckets=3)
    config = TrainerConfig(embedding_dim=5, l2=0.0, hashing={name: {"num_bins": 50_000} for name in hashed})
    data = Dataset.open(str(directory / "dataset"), config)
    model = trained_like(data, config)
    export_model(model, data, str(directory / "export"))
    shutil.move(directory / "export", directory / "served")
    return Exported(model, data, directory / "served", rows)


def hash_of(token: Any) -> int:
    return sum(str(token).encode())


KINDS: dict[str, tuple[dict[str, str], bool, list[str]]] = {
    "integers": (SIDES, False, []),
    "text": (SIDES, True, []),
    "several features": (SEVERAL, True, []),
    "hashed users and genres": (SEVERAL, False, ["userId", "genre"]),
}


@pytest.fixture(
    scope="module",
    params=[
        pytest.param("integers", marks=pytest.mark.slow),
        pytest.param("text", marks=pytest.mark.slow),
        pytest.param("several features", marks=pytest.mark.slow),
        "hashed users and genres",
    ],
)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return make(tmp_path_factory.mktemp("exported"), *KINDS[request.param])


def users(exported: Exported) -> dict[str, list[Any]]:
    """Returns known, rare and unknown tokens."""
    unknown = "never seen" if isinstance(exported.rows["userId"][0], str) else 2**62
    names = [name for name, side in exported.data.sides.items() if side == "user"]
    return {name: [*exported.rows[name][:20], unknown if name == "userId" else "never seen"] for name in names}


@pytest.mark.parametrize("k", [1, 5, 1000])
@pytest.mark.parametrize("m", [0, 3, 1000])
def test_recommend_lists_the_items_of_the_highest_logits(exported: Exported, k: int, m: int) -> None:
    asked, items = users(exported), exported.items()
    filler = "" if isinstance(items[0], str) else -1
    # As many as asked for, of the vocabulary, unknown ones, and nothing; with 1000, all items.
    pool = [*items, filler, "what?" if filler == "" else 2**50]
    exclude = [[pool[(7 * row + 3 * column) % len(pool)] for column in range(m)] for row in range(21)]
    got = exported.ask("recommend", **asked, exclude=np.array(exclude).reshape(21, m), k=k)
    vectors = exported.item_vectors(items)
    length = min(k, len(items))
    for row in range(21):
        user = exported.vector({name: tokens[row] for name, tokens in asked.items()})
        tokens, scores = best(exported.logits(user, vectors), items, set(exclude[row]), length)
        assert got["items"][row].tolist() == tokens
        np.testing.assert_allclose(got["scores"][row], scores, rtol=1e-6)
        probability = np.where(np.array(scores) > NO_SCORE, 1 / (1 + np.exp(-(0.7 * np.array(scores) - 0.2))), 0)
        np.testing.assert_allclose(got["probabilities"][row], probability, atol=1e-6)
    assert m < 1000 or (got["items"] == filler).all()


def test_what_recommend_says_of_a_pair_is_what_the_prediction_says(exported: Exported) -> None:
    asked, items = users(exported), exported.items()
    got = exported.ask("recommend", **asked, exclude=np.array([["" if isinstance(items[0], str) else -1]] * 21), k=3)
    if "genre" in exported.data.sides:
        pytest.skip("a pair is asked with its own genre")
    for row in range(21):
        pairs = {name: [tokens[row]] * 3 for name, tokens in asked.items()} | {"movieId": got["items"][row]}
        predicted = exported.ask("serving_default", **pairs)["probability"]
        np.testing.assert_allclose(got["probabilities"][row], predicted, atol=1e-6)


def test_recommend_for_items_is_a_newton_step_from_the_mean_user(exported: Exported) -> None:
    items = exported.items()
    unknown = "" if isinstance(items[0], str) else -1
    given = [[items[0], items[3], items[4]], [items[7], unknown, unknown], [unknown] * 3]
    exclude = [[items[1]], [unknown], [items[2]]]
    got = exported.ask("recommend_for_items", items=given, exclude=exclude, k=6)
    tables, rng = [], np.random.default_rng(0)
    for name in users(exported):
        table = exported.model.tables[name].numpy().astype(np.float64)
        tables.append(table[: exported.data.manifest.features[name].vocabulary_size or len(table)])
    some = sum(table[rng.integers(0, len(table), 128)] for table in tables)
    mean = sum(table.mean(axis=0) for table in tables)
    prior = np.linalg.inv(sum(np.cov(table[:, :-1].T, bias=True) for table in tables))
    vectors = exported.item_vectors(items)
    chosen = scipy.special.softmax(some[:, :-1] @ vectors[:, :-1].T + vectors[:, -1], axis=1).mean(axis=0)
    center = chosen @ vectors[:, :-1]
    spread = np.cov(vectors[:, :-1].T, aweights=chosen, bias=True)
    for row, tokens in enumerate(given):
        w = vectors[[items.index(token) for token in tokens if token != unknown]][:, :-1]
        # Gradient and negative Hessian at the mean user.
        x = np.linalg.solve(len(w) * spread + prior, (w - center).sum(axis=0))
        expected, scores = best(exported.logits(np.append(x, 0) + mean, vectors), items, {*tokens, *exclude[row]}, 6)
        assert got["items"][row].tolist() == expected
        np.testing.assert_allclose(got["scores"][row], scores, atol=1e-3)


def test_similar_items_are_the_nearest_by_cosine(exported: Exported) -> None:
    items = exported.items()
    unknown = "never seen" if isinstance(items[0], str) else 2**50
    got = exported.ask("similar_items", item=[*items, unknown], k=4)
    vectors = exported.item_vectors(items)[:, :-1]
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    for row, item in enumerate(items):
        tokens, cosines = best((unit @ unit[row]).astype(np.float32), items, {item}, 4)
        assert got["items"][row].tolist() == tokens
        np.testing.assert_allclose(got["scores"][row], cosines, atol=1e-6)
    assert got["scores"][-1].tolist() == [NO_SCORE] * 4


def test_vectors_order_items_as_recommend_does(exported: Exported) -> None:
    asked, items = users(exported), exported.items()
    unknown = "" if isinstance(items[0], str) else -1
    u = exported.ask("user_vector", **asked)["vector"]
    v = exported.ask("item_vector", item=[*items, unknown])["vector"]
    assert not v[-1].any()
    got = exported.ask("recommend", **asked, exclude=[[unknown]] * 21, k=len(items))
    products = u @ v[:-1].T
    assert [[items[i] for i in np.argsort(-row)] for row in products] == got["items"].tolist()
    np.testing.assert_allclose(-np.sort(-products), got["scores"], rtol=1e-4, atol=1e-4)


def test_all_signatures_need_tensorflow_alone(exported: Exported, tmp_path: Path) -> None:
    items, asked = exported.items(), users(exported)
    unknown = "" if isinstance(items[0], str) else -1
    calls: list[tuple[str, dict[str, Any]]] = [
        ("recommend", {**asked, "exclude": [[items[0], unknown]] * 21, "k": 5}),
        ("recommend_for_items", {"items": [items[:2]], "exclude": [[unknown]], "k": 5}),
        ("similar_items", {"item": items[:2], "k": 5}),
        ("user_vector", asked),
        ("item_vector", {"item": items[:2]}),
    ]
    (tmp_path / "calls.json").write_text(json.dumps(calls))
    command = [sys.executable, "-c", LOAD, str(exported.export), str(tmp_path / "calls.json")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    answers = json.loads(done.stdout)
    for (name, inputs), answer in zip(calls, answers, strict=True):
        for output, values in exported.ask(name, **inputs).items():
            assert answer[output] == values.tolist()


def test_equal_scores_go_by_the_order_of_the_vocabulary(tmp_path: Path) -> None:
    rows = random_rows(400, 1)
    write_dataset(tmp_path / "dataset", rows, rows, SIDES)
    config = TrainerConfig(embedding_dim=5, l2=0.0)
    data = Dataset.open(str(tmp_path / "dataset"), config)
    model = trained_like(data, config)
    # Two vectors, each of every second item, so that kernels meet them at all places.
    table = model.tables["movieId"].numpy()
    model.tables["movieId"].assign(table[np.arange(len(table)) % 2])
    export_model(model, data, str(tmp_path / "export"))
    exported = Exported(model, data, tmp_path / "export", rows)
    items = exported.items()
    got = exported.ask("recommend", userId=rows["userId"][:20], exclude=[[-1]] * 20, k=len(items))
    for row in got["items"]:
        assert row.tolist() in (items[::2] + items[1::2], items[1::2] + items[::2])
    similar = exported.ask("similar_items", item=[items[4]], k=3)["items"].tolist()
    assert similar == [[items[0], items[2], items[6]]]


def test_warm_up_requests_ask_every_signature_for_known_tokens(exported: Exported) -> None:
    asked = {}
    for record in tf.data.TFRecordDataset(str(exported.export / WARM_UP_PATH)).as_numpy_iterator():
        log = prediction_log().FromString(record)
        request = log.predict_log.request
        inputs = {name: tf.make_ndarray(value) for name, value in request.inputs.items()}
        asked[request.model_spec.signature_name] = exported.ask(request.model_spec.signature_name, **inputs)
    assert set(asked) == set(tf.saved_model.load(str(exported.export)).signatures)
    # Known ones: neither is the vector that of nobody.
    assert asked["item_vector"]["vector"].any()
    names = [name for name, side in exported.data.sides.items() if side == "user"]
    known = {n: exported.vocabulary(n)[0] for n in names if n not in exported.data.num_bins}
    if len(known) == len(names):
        user = {n: [t if isinstance(exported.rows[n][0], str) else int(t)] for n, t in known.items()}
        np.testing.assert_array_equal(asked["user_vector"]["vector"], exported.ask("user_vector", **user)["vector"])
    assert asked["recommend"]["items"].shape == (1, min(10, len(exported.items())))


def test_k_is_cut_to_what_there_is(exported: Exported) -> None:
    asked, items = users(exported), exported.items()
    exclude = np.array(items[:1] * 21)[:, np.newaxis]
    for k, length in ((-3, 0), (0, 0), (10**6, len(items))):
        assert exported.ask("recommend", **asked, exclude=exclude, k=k)["items"].shape == (21, length)


def test_the_matrix_of_items_is_stored_only_if_it_is_no_part_of_a_table(exported: Exported) -> None:
    names = [name for name, _ in tf.train.list_variables(str(exported.export / "variables" / "variables"))]
    stored = "recommender/vectors/.ATTRIBUTES/VARIABLE_VALUE" in names
    assert stored == ("genre" in exported.data.sides)


@pytest.mark.slow
def test_another_export_recommends_allowed_items_only(exported: Exported, tmp_path: Path) -> None:
    asked, items = users(exported), exported.items()
    text = isinstance(items[0], str)
    unknown = "" if text else -1
    # In another order, twice, with an item that the model does not know.
    allowed = [items[i] for i in range(2, len(items), 3)]
    listed = [*reversed(allowed), allowed[0], "never seen" if text else 2**50]
    (tmp_path / "items.txt").write_text("".join(f"{item}\n" for item in listed) + "\n")
    # Nothing but the export is there.
    shutil.copytree(exported.export, tmp_path / "alone")
    found = export_with_items(str(tmp_path / "alone"), str(tmp_path / "items.txt"), str(tmp_path / "other"), "nowhere")
    assert found == (len(allowed), 1)
    shutil.rmtree(tmp_path / "alone")
    other = Exported(exported.model, exported.data, tmp_path / "other", exported.rows)
    got = other.ask("recommend", **asked, exclude=[[allowed[0], items[0]]] * 21, k=1000)
    assert got["items"].shape == (21, len(allowed))
    for row in range(21):
        user = exported.vector({name: tokens[row] for name, tokens in asked.items()})
        scores = exported.logits(user, exported.item_vectors(allowed))
        assert got["items"][row].tolist() == best(scores, allowed, {allowed[0]}, len(allowed))[0]
    # An item that is not allowed still says what a user likes, and has neighbours.
    from_expired = other.ask("recommend_for_items", items=[[items[0]], [unknown]], exclude=[[unknown]] * 2, k=3)
    assert from_expired["scores"][0].tolist() != from_expired["scores"][1].tolist()
    assert set(from_expired["items"].ravel()) <= set(allowed)
    assert set(other.ask("similar_items", item=[items[0]], k=3)["items"][0]) <= set(allowed)
    tokens = {**{n: asked[n] for n in asked}, "movieId": [items[0]] * 21, "genre": ["g1"] * 21}
    pairs = {name: tokens[name] for name in exported.data.sides}
    assert exported.ask("serving_default", **pairs)["probability"].tolist() == (
        other.ask("serving_default", **pairs)["probability"].tolist()
    )
    # The whole catalogue is still there: from the other export, a third one recommends other items.
    (tmp_path / "items.txt").write_text(f"{items[0]}\n{items[1]}\n")
    third = export_with_items(str(tmp_path / "other"), str(tmp_path / "items.txt"), str(tmp_path / "third"), "nowhere")
    assert third == (2, 0)
