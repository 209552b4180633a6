"""Chooses the devices to train on, and checks workers and memory."""
