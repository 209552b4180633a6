"""Writes shards, rejected rows and the manifest."""
