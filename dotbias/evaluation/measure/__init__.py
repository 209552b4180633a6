"""Metrics, intervals, rankings, slices and warnings, computed from arrays."""
