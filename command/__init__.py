"""The command line of Dotbias: flags -> configuration -> stages."""
