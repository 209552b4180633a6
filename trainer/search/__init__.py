"""Searches for better options of the trainer."""
