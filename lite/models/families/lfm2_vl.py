"""LFM2-VL: images as tiles of patches; most layers are short convolutions."""

from __future__ import annotations

from lite.models.families.family import Family

FAMILY = Family(
    model_types=("lfm2_vl",),
    unshared="its convolutions are not forked in a packed row yet",
    vision_names=r"<\|img_\w+\|>",
)
