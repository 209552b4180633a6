"""Measures an exported model on rows with known labels, with intervals, baselines and warnings."""
