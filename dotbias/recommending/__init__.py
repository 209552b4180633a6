"""Recommends items to all users at once: lists by arrays, and the Beam job around them."""
