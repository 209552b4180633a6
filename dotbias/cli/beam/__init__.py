"""Checks the flags of Beam and what Dataflow needs."""
