"""Trains TensorFlow Recommenders as in its tutorials: `Model` with a `Ranking` task, Keras `Adagrad`, the usual reader.

Arguments: dataset, steps, users, items, dimension.
"""

import sys

from usual import Timed, tf, usual_reader

# isort: split
# After `usual`, which chooses Keras 2.
import tensorflow_recommenders as tfrs

BATCH_SIZE = 8192
dataset, steps, users, items, dim = sys.argv[1], *map(int, sys.argv[2:6])


class Model(tfrs.Model):
    def __init__(self):
        super().__init__()
        self.users = tf.keras.layers.Embedding(users + 1, dim)
        self.items = tf.keras.layers.Embedding(items + 1, dim)
        self.task = tfrs.tasks.Ranking(
            loss=tf.keras.losses.BinaryCrossentropy(from_logits=True),
            metrics=[tf.keras.metrics.AUC(from_logits=True), tf.keras.metrics.BinaryAccuracy(threshold=0.0)],
        )

    def call(self, features):
        user, item = self.users(features["userId"]), self.items(features["movieId"])
        return tf.reduce_sum(user[:, :-1] * item[:, :-1], axis=1) + user[:, -1] + item[:, -1]

    def compute_loss(self, inputs, training=False):
        features, label = inputs
        return self.task(labels=label[:, tf.newaxis], predictions=self(features)[:, tf.newaxis])


model = Model()
model.compile(optimizer=tf.keras.optimizers.Adagrad(0.1))
timed = Timed(BATCH_SIZE, every=max(steps // 5, 1))
model.fit(usual_reader(dataset, BATCH_SIZE), steps_per_epoch=steps, epochs=1, verbose=0, callbacks=[timed])
timed.pace.say()
