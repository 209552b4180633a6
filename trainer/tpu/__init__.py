"""Trains on a TPU, in a process of its own, and brings the weights back to the host."""
