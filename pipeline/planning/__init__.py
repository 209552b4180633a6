"""Estimates what a log will take."""
