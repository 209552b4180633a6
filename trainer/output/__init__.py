"""Writes the export, predictions and metrics.json."""
