"""Assigns rows to splits and drops duplicates; hashes and random numbers for that."""
