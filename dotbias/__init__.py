"""Holds what a person or a scheduler touches: the command line, evaluation, retraining, recommending."""
