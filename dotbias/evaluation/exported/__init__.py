"""Reads an exported model: its answers and its tables."""
