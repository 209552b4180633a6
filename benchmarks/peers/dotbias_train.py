"""This trainer, as its command runs it: from gzip shards, all metrics. Arguments: dataset, model directory, dimension.

The pace is that of the first epoch, without evaluation.
"""

import shutil
import sys

from pace import Pace

from trainer.config import TrainerConfig
from trainer.train import train

dataset, model_dir, dim = sys.argv[1:4]
shutil.rmtree(model_dir, ignore_errors=True)
config = TrainerConfig(embedding_dim=int(dim), epochs=1, refit=False)
pace = Pace()


def progress(stage, done, total, metrics):
    # The report at 0 rows comes before compilation.
    if stage == "train" and done:
        pace.at(done)


train(dataset, model_dir, config, progress)
pace.say()
