"""Stages that answer with items: lists for all users, and exports that recommend allowed items."""
