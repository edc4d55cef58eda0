"""Explainable multimodal retrieval-augmented generation, trained on one 24 GB GPU."""

__version__ = "0.1.0"
