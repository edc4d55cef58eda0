"""Gemma 3 and 4: sliding windows in most layers, and images whose tokens see one another."""

from __future__ import annotations

from transformers import ProcessorMixin

from lite.models.families.family import Family
from lite.schema import LiteError

UNSHARED = "a completion's sliding windows and what an image's tokens see are not told apart in a packed row yet"
SOFT_TOKENS = (1120, 560, 280, 140, 70)  # that Gemma 4 knows


def limit_gemma3(processor: ProcessorMixin, max_pixels: int) -> None:
    """An image has one size. What pan and scan cuts out of it comes on top."""
    images = processor.image_processor
    area = images.size["height"] * images.size["width"]
    if max_pixels < area:
        raise LiteError(f"This model takes images of {area} pixels, no fewer. Set max_pixels to {area} or more.")
    if max_pixels < area * (1 + (images.pan_and_scan_max_num_crops or 0)):
        images.do_pan_and_scan = False


def limit_gemma4(processor: ProcessorMixin, max_pixels: int) -> None:
    """The most soft tokens, of the numbers that the model knows, whose patches have no more pixels."""
    images = processor.image_processor
    area = (images.patch_size * images.pooling_kernel_size) ** 2
    known = [tokens for tokens in SOFT_TOKENS if tokens * area <= max_pixels]
    if not known:
        least = SOFT_TOKENS[-1] * area
        raise LiteError(
            f"This model takes images of up to {least} pixels, no fewer. Set max_pixels to {least} or more."
        )
    images.max_soft_tokens = min(images.max_soft_tokens, known[0])


GEMMA3 = Family(
    model_types=("gemma3",),
    limit_pixels=limit_gemma3,
    unshared=UNSHARED,
    token_side=lambda config: config.vision_config.image_size / config.mm_tokens_per_image**0.5,
)
GEMMA4 = Family(
    model_types=("gemma4",),
    limit_pixels=limit_gemma4,
    unshared=UNSHARED,
    # Small projections of the embeddings that each layer has of its own.
    left_out=("per_layer_input_gate", "per_layer_projection", "per_layer_model_projection"),
    token_side=lambda config: config.vision_config.patch_size * config.vision_config.pooling_kernel_size,
)
