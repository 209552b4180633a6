"""The stages of the command."""
