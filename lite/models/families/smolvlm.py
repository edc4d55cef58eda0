"""Idefics3, SmolVLM and SmolVLM2: images as tiles, each of them marked by its row and column."""

from __future__ import annotations

from lite.models.families.family import Family

FAMILY = Family(
    model_types=("idefics3", "smolvlm"),
    vision_names=r"<row_\d+_col_\d+>|<global-img>|<fake_token_around_image>|<video>",
)
