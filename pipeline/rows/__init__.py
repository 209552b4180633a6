"""Decides about single rows: split, duplicates."""
