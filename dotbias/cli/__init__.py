"""Holds the command line: flags -> configuration -> stages."""
