"""The training loop: epochs, checkpoints, early stopping, refit."""
