"""Reads a dataset: shards, cache, checks."""
