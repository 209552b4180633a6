"""Metrics, intervals, rankings, slices and warnings of arrays."""
