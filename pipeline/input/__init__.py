"""Reads the raw log into batches of interactions."""
