"""Computes metrics, intervals, rankings, slices and warnings from arrays."""
