"""Trains with PyTorch: `nn.Embedding(sparse=True)`, `SparseAdam`, shuffled rows in memory, no metrics but the loss.

Uses one thread or all, whichever is faster; on a GPU the rows lie in its memory. Runs in an environment of its own.

Arguments: file of columns (.npz), steps, users, items, dimension, batch size, device.
"""

import sys
import time

import numpy as np
import torch
from pace import Pace
from torch import nn

path, steps, users, items, dim, batch_size = sys.argv[1], *map(int, sys.argv[2:7])
torch.set_default_device(sys.argv[7])
trial_steps = min(50, steps // 4)
columns = np.load(path)
user, item = (torch.tensor(columns[name].astype(np.int64)) for name in ("userId", "movieId"))
label = torch.tensor(columns["label"].astype(np.float32))
tables = [nn.Embedding(size + 1, dim, sparse=True) for size in (users, items)]
for table in tables:
    nn.init.normal_(table.weight, std=0.05)
optimizer = torch.optim.SparseAdam([table.weight for table in tables], lr=0.003)
loss_of = nn.BCEWithLogitsLoss()
total = torch.zeros(())


def train_step(step: int) -> None:
    rows = slice(step * batch_size, (step + 1) * batch_size)
    u, v = tables[0](user[rows]), tables[1](item[rows])
    logit = (u[:, :-1] * v[:, :-1]).sum(1) + u[:, -1] + v[:, -1]
    loss = loss_of(logit, label[rows])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    total.add_(loss.detach())


def seconds_with(threads: int, first_step: int) -> float:
    torch.set_num_threads(threads)
    begin = time.perf_counter()
    for step in range(first_step, first_step + trial_steps):
        train_step(step)
    total.item()  # A GPU runs behind the program.
    return time.perf_counter() - begin


# Threads that wait for each other are no gain on a busy machine.
trials = {threads: seconds_with(threads, i * trial_steps) for i, threads in enumerate((torch.get_num_threads(), 1))}
torch.set_num_threads(min(trials, key=trials.__getitem__))
pace = Pace()
for step in range(2 * trial_steps, steps):
    train_step(step)
    if step in (2 * trial_steps, steps - 1):
        total.item()
        pace.at((step + 1) * batch_size)
pace.say()
