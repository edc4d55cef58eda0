"""Data sets: each module yields Examples."""
