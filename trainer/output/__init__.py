"""Calibrates the model, writes the export and metrics.json."""
