"""Exports that list only the items of a file, and what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import tensorflow as tf

from pipeline.manifest import DotbiasError
from tests.trainer.conftest import random_rows
from tests.trainer.datasets import write_dataset
from tests.trainer.output.test_recommend import SEVERAL, SIDES, Exported, best, make, users
from trainer.config import TrainerConfig
from trainer.data.dataset import Dataset
from trainer.output.export import export_with_items


@pytest.mark.slow
@pytest.mark.parametrize("several", [False, True])
def test_hashed_items_are_recommended_from_a_list(tmp_path: Path, several: bool) -> None:
    sides = SEVERAL if several else SIDES
    exported = make(tmp_path, sides, True, ["movieId"])
    signatures = tf.saved_model.load(str(exported.export)).signatures
    assert set(signatures) == {"serving_default", "user_vector"}
    items = sorted(set(exported.rows["movieId"]), reverse=True)
    (tmp_path / "items.txt").write_text("".join(f"{item}\n" for item in items))
    arguments = (str(exported.export), str(tmp_path / "items.txt"), str(tmp_path / "other"), exported.data.path)
    assert export_with_items(*arguments) == (len(items), 0)
    listed = Exported(exported.model, exported.data, tmp_path / "other", exported.rows)
    asked = users(exported)
    got = listed.ask("recommend", **asked, exclude=[[items[0], "never seen"]] * 21, k=7)
    vectors = exported.item_vectors(items)
    for row in range(21):
        user = exported.vector({name: tokens[row] for name, tokens in asked.items()})
        assert got["items"][row].tolist() == best(exported.logits(user, vectors), items, {items[0]}, 7)[0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1\nx\n", r"items.txt, line 2: 'x' is not an int64"),
        ("1\n9223372036854775808\n", r"items.txt, line 2: '9223372036854775808' is not an int64"),
        ("\n", r"items.txt has no token; write one a line"),
        ("5\n6\n", r"none of its 2 tokens is in the vocabulary of 'movieId'"),
    ],
)
def test_a_list_that_cannot_be_used_is_refused(tmp_path: Path, text: str, message: str) -> None:
    exported = make(tmp_path, SIDES, False)
    (tmp_path / "items.txt").write_text(text)
    with pytest.raises(DotbiasError, match=message):
        export_with_items(str(exported.export), str(tmp_path / "items.txt"), str(tmp_path / "other"), "")
    assert not (tmp_path / "other").exists()


def test_an_export_without_a_description_is_refused(tmp_path: Path) -> None:
    exported = make(tmp_path, SIDES, False)
    shutil.rmtree(exported.export / "assets.extra")
    with pytest.raises(DotbiasError, match="Train the model again"):
        export_with_items(str(exported.export), "", str(tmp_path / "other"), "")


def test_a_feature_with_the_name_of_another_input_is_refused_before_training(tmp_path: Path) -> None:
    rows = random_rows(50, 1)
    rows = {"k": rows["userId"], "movieId": rows["movieId"], "label": rows["label"]}
    write_dataset(tmp_path / "dataset", rows, rows, {"k": "user", "movieId": "item"})
    with pytest.raises(DotbiasError, match="'k' is an input of the signature `recommend`"):
        Dataset.open(str(tmp_path / "dataset"), TrainerConfig())
