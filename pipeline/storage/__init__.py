"""Reads and writes files on any file system that Beam knows."""
