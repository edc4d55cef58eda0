"""LFM2-VL: an image is as many patches as it needs, or several tiles and a thumbnail; most layers are convolutions."""

from __future__ import annotations

from transformers import ProcessorMixin

from lite.models.families.family import Family, in_line
from lite.schema import LiteError


def limit_pixels(processor: ProcessorMixin, max_pixels: int) -> None:
    """Fewer tiles beside the thumbnail; below two of them, an image that is not cut."""
    images = processor.image_processor
    token = (images.encoder_patch_size * images.downsample_factor) ** 2
    least = images.min_image_tokens * token
    if max_pixels < least:
        raise LiteError(f"This model takes images of {least} pixels, no fewer. Set max_pixels to {least} or more.")
    images.max_image_tokens = min(images.max_image_tokens, max_pixels // token)
    images.max_tiles = min(images.max_tiles, max_pixels // images.tile_size**2 - 1)
    if images.max_tiles < images.min_tiles:
        images.min_tiles = images.max_tiles = 1


FAMILY = Family(
    model_types=("lfm2_vl",),
    limit_pixels=limit_pixels,
    positions=in_line,
    state_layers=("conv",),
    vision_names=r"<\|img_\w+\|>",
    token_side=lambda config: config.vision_config.patch_size * config.downsample_factor,
)
