"""Compares vocabularies with hashing on the same rows."""
