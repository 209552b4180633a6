"""Holds the stages of the command, one module each."""
