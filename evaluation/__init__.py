"""What a model is worth on rows with known labels, with intervals, baselines and warnings."""
