"""Runs this trainer as its command does: from gzip shards, with all metrics.

Arguments: dataset, model directory, dimension, and options of the trainer as `key=value`. The speed is that of the
first epoch or, with a cache, of the second, which reads from the cache. Evaluation is left out.
"""

import shutil
import sys

from pace import Pace

from trainer.config import TrainerConfig
from trainer.train import train

dataset, model_dir, dim, *options = sys.argv[1:]
shutil.rmtree(model_dir, ignore_errors=True)
chosen = dict(option.split("=") for option in options)
epochs = 2 if "cache" in chosen else 1
config = TrainerConfig.model_validate({"embedding_dim": dim, "epochs": epochs, "refit": False, **chosen})
pace = Pace()


def progress(stage, done, total, metrics):
    # The report at 0 rows comes before compilation.
    if stage == "train" and done and metrics["epoch"] == epochs:
        pace.at(done)


train(dataset, model_dir, config, progress)
pace.say()
