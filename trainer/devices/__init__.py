"""Strategy, workers and memory of the machine."""
