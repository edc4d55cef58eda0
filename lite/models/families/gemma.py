"""Gemma 3 and 4: sliding windows in most layers, and images whose tokens see one another."""

from __future__ import annotations

from lite.models.families.family import Family

FAMILY = Family(
    model_types=("gemma3", "gemma4"),
    unshared="a completion's sliding windows and what an image's tokens see are not told apart in a packed row yet",
    # Small projections of the embeddings that each layer has of its own.
    left_out=("per_layer_input_gate", "per_layer_projection", "per_layer_model_projection"),
)
