"""Files on any file system that Beam knows."""
