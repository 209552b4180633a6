"""Runs an epoch of this trainer with checkpoints in it. Arguments: dataset, model directory, dimension, steps, how.

`steps` is the number of steps between two checkpoints. `how` is blocks (what the trainer does), whole or async (both of
them TensorFlow's own), or none (nothing is written).
"""

import json
import shutil
import sys
import time
from types import SimpleNamespace

from trainer.config import TrainerConfig
from trainer.loop import fit
from trainer.loop.checkpoint import CheckpointDirectory
from trainer.train import train

# TensorFlow behind the trainer, which chooses the Keras.
import tensorflow as tf  # isort: skip

dataset, model_dir, dim, steps, how = sys.argv[1:]
shutil.rmtree(model_dir, ignore_errors=True)
config = TrainerConfig.model_validate(
    {
        "embedding_dim": dim,
        "batch_size": 8192,
        "epochs": 1,
        "refit": False,
        "steps_per_execution": 32,
        "checkpoint": {"every_steps": steps, "every_minutes": 1e6},
    }
)
options = tf.train.CheckpointOptions(experimental_enable_async_checkpoint=how == "async")
if how in ("whole", "async"):

    def saved(model, average, strategy):
        checkpoint = tf.train.Checkpoint(model=model, optimizer=model.optimizer, average=average.saved)
        return SimpleNamespace(write=lambda path: checkpoint.write(path, options), read=checkpoint.read)

    fit._saved = saved
save = CheckpointDirectory.save
standstill, began = [], []


def timed_save(directory, checkpoint, state):
    now = time.perf_counter()
    if how != "none":
        save(directory, checkpoint, state)
    standstill.append(time.perf_counter() - now)


class Done(BaseException):
    pass


def progress(stage, done, total, metrics):
    # The report at 0 rows comes before compilation.
    if done and not began:
        began.append(time.perf_counter())
    if done == total:
        raise Done


CheckpointDirectory.save = timed_save
try:
    train(dataset, model_dir, config, progress)
except Done:
    print(json.dumps({"seconds": time.perf_counter() - began[0], "standstill": standstill}))
shutil.rmtree(model_dir)
