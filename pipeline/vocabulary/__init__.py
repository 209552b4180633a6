"""Counts tokens, makes frequency vocabularies, and encodes tokens with TensorFlow Transform."""
