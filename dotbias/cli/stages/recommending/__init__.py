"""Holds the stages about lists of items: lists for all users, and exports that recommend only listed items."""
