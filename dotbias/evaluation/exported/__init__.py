"""Reads an exported model: its predictions and its embedding tables."""
