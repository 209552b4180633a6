"""What a person or a scheduler touches: the command line, evaluation, reports."""
