"""Saves and reads the state of the exported model, so that a later training can start from it.

```
<model_dir>/state/
  weights.index, .data-*   tables, global bias, the optimizer's slots of both, and its step
  state.json               dataset and options that they belong to, see `SavedState`; written last
```
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, Literal

import tensorflow as tf
from pydantic import BaseModel, ValidationError

from pipeline.manifest import DotbiasError, Split, join
from trainer.data.files import write_text
from trainer.loop.checkpoint import UNREADABLE, short
from trainer.model.blocks import row_blocks
from trainer.model.dot_bias import DotBias, log_odds
from trainer.model.variables import Variables, saved_name

STATE_DIRECTORY = "state"
_WEIGHTS_NAME, _STATE_NAME = "weights", "state.json"


class SavedState(BaseModel):
    """Describes what saved weights belong to.

    `fingerprint` is that of the training, and `dataset` the fingerprint of its dataset, which has the vocabularies.
    `num_bins` is by hashed feature.
    """

    format_version: Literal[1] = 1
    fingerprint: str
    dataset: str
    embedding_dim: int
    optimizer: str
    objective: str = "cross_entropy"
    num_bins: dict[str, int]


def save_state(model: DotBias, model_dir: str, state: SavedState, worker: int = 0) -> None:
    """Write the weights, then `state.json`; workers other than 0 only take part, as in `CheckpointDirectory`.

    Raises:
        DotbiasError: it cannot be written, for example because the disk is full.
    """
    directory = join(model_dir, STATE_DIRECTORY)
    checkpoint = Variables(state_variables(model), model.distribute_strategy)
    if worker:
        aside = join(model_dir, f"{STATE_DIRECTORY}-{worker}")
        checkpoint.write(join(aside, "unused"))
        tf.io.gfile.rmtree(aside)
        return
    try:
        if tf.io.gfile.exists(directory):
            tf.io.gfile.rmtree(directory)
        tf.io.gfile.makedirs(directory)
        checkpoint.write(join(directory, _WEIGHTS_NAME))
        write_text(join(directory, _STATE_NAME), state.model_dump_json(indent=2) + "\n")
    except (tf.errors.OpError, OSError) as error:
        raise DotbiasError(
            f"The state of the model cannot be written to {directory} ({short(error)}). Free the disk and start the "
            "same command again: it goes on from the last checkpoint."
        ) from error


def read_state(model_dir: str) -> SavedState | None:
    """Return the description of a training's saved weights; None if there are none that this version can read."""
    path = join(model_dir, STATE_DIRECTORY, _STATE_NAME)
    if not tf.io.gfile.exists(path):
        return None
    with tf.io.gfile.GFile(path) as file:
        try:
            return SavedState.model_validate_json(file.read())
        except ValidationError:
            return None


def read_weights(model_dir: str) -> Callable[..., Any]:
    """Return a function that reads one saved array by its keys, such as ("tables", "userId"), and nothing else.

    Raises:
        DotbiasError: now or from the function, the weights cannot be read.
    """
    path = join(model_dir, STATE_DIRECTORY, _WEIGHTS_NAME)

    def read(*keys: str) -> Any:
        try:
            return reader.get_tensor(saved_name("/".join(keys)))
        except UNREADABLE as error:
            raise unreadable(error) from error

    def unreadable(error: Exception) -> DotbiasError:
        return DotbiasError(
            f"The weights to start from, {path}, cannot be read ({short(error)}). Delete that directory to start from "
            "random values."
        )

    try:
        reader = tf.train.load_checkpoint(path)
    except UNREADABLE as error:
        raise unreadable(error) from error
    return read


def state_variables(model: DotBias) -> dict[str, tf.Variable]:
    """Return by name the variables that training goes on from: tables, bias, the optimizer's slots and step."""
    found = {"bias": model.bias, "step": model.optimizer.iterations}
    found |= {f"bias_slots/{name}": slot for name, slot in slots_of(model, model.bias).items()}
    for name, table in model.tables.items():
        found[f"tables/{name}"] = table
        found |= {f"table_slots/{name}/{slot_name}": slot for slot_name, slot in slots_of(model, table).items()}
    return found


def start_anew(model: DotBias, train: Split) -> None:
    """Set tables, bias, slots and step to their values before the first step of a training on the split `train`."""
    copies = model.distribute_strategy.experimental_local_results
    for config, table in model.embedding.embedding_tables.items():
        for copy in copies(table):
            for block in row_blocks(copy):
                end = copy.shape[0] if block.end is None else block.end
                part = SimpleNamespace(shape=(end - block.first, copy.shape[1]), offset=(block.first, 0))
                block.write(config.initializer(copy.shape, dtype=copy.dtype, shard_info=part))
    model.bias.assign(log_odds(train))
    # Only Adagrad's slots do not begin at 0.
    value = getattr(model.optimizer, "_initial_accumulator_value", 0.0)
    for variable in (model.bias, *model.tables.values()):
        for slot in slots_of(model, variable).values():
            for copy in copies(slot):
                for block in row_blocks(copy):
                    block.write(tf.fill(block.read().shape, tf.cast(value, copy.dtype)))
    model.optimizer.iterations.assign(0)


def make_slots(model: DotBias) -> None:
    """Make the optimizer's slots, which Keras makes at the first step; call it in the strategy's scope."""
    model.optimizer._create_all_weights([*model.tables.values(), model.bias])


def slots_of(model: DotBias, variable: tf.Variable) -> dict[str, tf.Variable]:
    """Return what the optimizer keeps for a variable, by the optimizer's name for it."""
    return {name: model.optimizer.get_slot(variable, name) for name in model.optimizer.get_slot_names()}
