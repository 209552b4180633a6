"""Trains with the usual Keras loop: two `Embedding` layers and biases, `legacy.Adam`, the usual reader.

Arguments: dataset, steps, users, items, dimension.
"""

import sys

from usual import Timed, tf, usual_reader

BATCH_SIZE = 8192
dataset, steps, users, items, dim = sys.argv[1], *map(int, sys.argv[2:6])
keras = tf.keras
user, item = (keras.Input([], dtype=tf.int32, name=name) for name in ("userId", "movieId"))
vectors = [keras.layers.Embedding(size + 1, dim - 1)(x) for size, x in ((users, user), (items, item))]
biases = [keras.layers.Embedding(size + 1, 1)(x)[:, 0] for size, x in ((users, user), (items, item))]
logit = keras.layers.Dot(1)(vectors)[:, 0] + biases[0] + biases[1]
model = keras.Model({"userId": user, "movieId": item}, logit)
model.compile(
    optimizer=keras.optimizers.legacy.Adam(0.003),
    loss=keras.losses.BinaryCrossentropy(from_logits=True),
    metrics=[keras.metrics.AUC(from_logits=True), keras.metrics.BinaryAccuracy(threshold=0.0)],
)
timed = Timed(BATCH_SIZE, every=max(steps // 5, 1))
model.fit(usual_reader(dataset, BATCH_SIZE), steps_per_epoch=steps, epochs=1, verbose=0, callbacks=[timed])
timed.pace.say()
