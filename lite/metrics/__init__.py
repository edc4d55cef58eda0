"""Evaluation, with no knowledge of models or files."""
