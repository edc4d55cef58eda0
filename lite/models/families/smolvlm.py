"""Idefics3, SmolVLM and SmolVLM2: an image is one square tile, or several and the whole once more."""

from __future__ import annotations

import math
from functools import partial

from transformers import ProcessorMixin

from lite.models.families.family import Family, in_line, one_after_another
from lite.schema import LiteError


def limit_pixels(processor: ProcessorMixin, max_pixels: int) -> None:
    """At most n x n tiles and the whole image as one more, or one tile alone."""
    images = processor.image_processor
    side = images.max_image_size["longest_edge"]
    tiles = max_pixels // side**2
    if tiles < 1:
        raise LiteError(
            f"This model takes an image in tiles of {side} x {side} pixels. Set max_pixels to {side**2} or more."
        )
    along = max(1, math.isqrt(tiles - 1))
    images.size["longest_edge"] = min(images.size["longest_edge"], along * side)
    images.do_image_splitting = images.do_image_splitting and along > 1


FAMILY = Family(
    model_types=("idefics3", "smolvlm"),
    limit_pixels=limit_pixels,
    positions=in_line,
    only_shared=True,  # it splits rows of tiles by the number of images, so that completions see others' pixels
    join_images=partial(one_after_another, dim=1),  # [prompts, tiles, ...]
    vision_names=r"<row_\d+_col_\d+>|<global-img>|<fake_token_around_image>|<video>",
    token_side=lambda config: config.vision_config.patch_size * config.scale_factor,
)
