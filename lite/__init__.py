"""Explainable multimodal retrieval-augmented generation, trained on one 24 GB GPU."""

import logging

__version__ = "0.1.0"

# On a CPU it asks for a package that fetches a kernel from the hub; all works without.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
