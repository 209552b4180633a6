"""Recommends items to all users at once, by a Beam job over blocks of users."""
