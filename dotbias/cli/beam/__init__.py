"""Flags of Beam and checks for Dataflow."""
