"""What the command prints: progress, summaries, error messages."""
