"""InternVL 2.5 to 3.5: an image is one square tile, or several and the whole once more."""

from __future__ import annotations

from transformers import ProcessorMixin

from lite.models.families.family import Family, in_line
from lite.schema import LiteError


def limit_pixels(processor: ProcessorMixin, max_pixels: int) -> None:
    """At most so many tiles; where there are several, the whole image is one more."""
    images = processor.image_processor
    tile = images.size["height"] * images.size["width"]
    tiles = max_pixels // tile
    if tiles < 1:
        raise LiteError(f"This model takes an image in tiles of {tile} pixels. Set max_pixels to {tile} or more.")
    images.max_patches = min(images.max_patches, max(1, tiles - 1))
    images.min_patches = min(images.min_patches, images.max_patches)


FAMILY = Family(
    model_types=("internvl",),
    limit_pixels=limit_pixels,
    positions=in_line,
    vision_names=r"</?img>|<video>",
    token_side=lambda config: config.vision_config.patch_size[0] / config.downsample_ratio,
)
