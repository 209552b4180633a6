"""Holds what is about Beam itself: threads, messages, submission, counters."""
