"""Helpers for Beam: threads, messages, submission, counters."""
