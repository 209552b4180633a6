"""Prints progress and summaries."""
