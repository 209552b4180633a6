"""The command line: flags -> configuration -> stages."""
