"""Trains a model: epochs, checkpoints, early stopping, refit."""
