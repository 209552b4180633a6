"""Holds the steps that several stages share."""
