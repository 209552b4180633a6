"""Decides row by row: split, duplicates."""
