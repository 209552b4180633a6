"""Generates a log from a known model."""
