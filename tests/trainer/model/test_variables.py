"""Variables in files, a block of rows at a time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from trainer.model import blocks
from trainer.model.blocks import Block
from trainer.model.variables import Variables, saved_name

SHAPES = {"table": [1000, 3], "slots/moments": [1000, 6], "flat": [700], "small": [5, 2], "step": []}


@pytest.fixture(params=["one device", "a strategy"])
def strategy(request: pytest.FixtureRequest) -> tf.distribute.Strategy:
    return tf.distribute.get_strategy() if request.param == "one device" else tf.distribute.MirroredStrategy(["/cpu:0"])


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes several blocks of all variables but the last two, and several parts of a file."""
    monkeypatch.setattr(blocks, "_BLOCK_BYTES", 1000)
    monkeypatch.setattr("trainer.model.variables._BYTES_AT_A_TIME", 2500)


def make(strategy: tf.distribute.Strategy, seed: int) -> dict[str, tf.Variable]:
    draw = np.random.default_rng(seed)
    with strategy.scope():
        return {name: tf.Variable(draw.random(shape, np.float32)) for name, shape in SHAPES.items()} | {
            "count": tf.Variable(seed, dtype=tf.int64)
        }


def test_what_is_written_is_read(tmp_path: Path, strategy: tf.distribute.Strategy) -> None:
    written, read = make(strategy, 1), make(strategy, 2)
    path = str(tmp_path / "new" / "saved")
    Variables(written, strategy).write(path)
    Variables(read, strategy).read(path)
    for name, variable in written.items():
        np.testing.assert_array_equal(variable.numpy(), read[name].numpy())
    assert all(file.name.startswith(("saved.index", "saved.data-")) for file in (tmp_path / "new").iterdir())
    # TensorFlow's own tools read it, and it reads what they write.
    reader = tf.train.load_checkpoint(path)
    for name, variable in written.items():
        np.testing.assert_array_equal(reader.get_tensor(saved_name(name)), variable.numpy())
    again = make(strategy, 3)
    tf.train.Checkpoint(slots={"moments": read.pop("slots/moments")}, **read).write(str(tmp_path / "theirs"))
    Variables(again, strategy).read(str(tmp_path / "theirs"))
    np.testing.assert_array_equal(again["slots/moments"].numpy(), written["slots/moments"].numpy())


def test_no_more_than_some_rows_are_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []
    read, write = Block.read, Block.write

    def counted(block: Block) -> tf.Tensor:
        values = read(block)
        taken.append(int(tf.size(values)) * 4)
        return values

    def counted_too(block: Block, values: tf.Tensor) -> None:
        taken.append(int(tf.size(values)) * 4)
        write(block, values)

    monkeypatch.setattr(Block, "read", counted)
    monkeypatch.setattr(Block, "write", counted_too)
    variables = Variables(make(tf.distribute.get_strategy(), 1), tf.distribute.get_strategy())
    variables.write(str(tmp_path / "saved"))
    variables.read(str(tmp_path / "saved"))
    assert max(taken) <= 1000 and len(taken) > 80


@pytest.mark.parametrize("other", [{"table": [999, 3]}, {"small": [6, 2]}, {"more": [2]}])
def test_a_file_of_other_variables_is_refused(tmp_path: Path, other: dict[str, list[int]]) -> None:
    strategy = tf.distribute.get_strategy()
    Variables(make(strategy, 1), strategy).write(str(tmp_path / "saved"))
    changed = make(strategy, 2) | {name: tf.Variable(tf.zeros(shape)) for name, shape in other.items()}
    with pytest.raises((tf.errors.OpError, ValueError)):
        Variables(changed, strategy).read(str(tmp_path / "saved"))
