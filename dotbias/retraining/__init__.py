"""Retrains on a schedule: runs by date, champion and challenger, the gate, what serves."""
