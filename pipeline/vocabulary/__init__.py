"""Frequency vocabularies and the encoding graph of TensorFlow Transform."""
