"""Qwen2-VL, Qwen2.5-VL and Qwen3-VL: images of any size as flat patches, positions in time, height and width."""

from __future__ import annotations

import torch
from transformers import PretrainedConfig, PreTrainedModel, ProcessorMixin

from lite.models.families.family import Family, Images


def limit_pixels(processor: ProcessorMixin, max_pixels: int) -> None:
    """Both edges count pixels here, no sides."""
    size = processor.image_processor.size
    size["longest_edge"], size["shortest_edge"] = max_pixels, min(size["shortest_edge"], max_pixels)


def m_rope(model: PreTrainedModel, ids: torch.Tensor, mask: torch.Tensor, images: Images) -> torch.Tensor:
    """M-RoPE positions [3, U, P]; the pads' are 0 and unused."""
    if not images:
        return (mask.long().cumsum(-1) - 1).clamp(min=0).expand(3, -1, -1)
    return model.model.get_rope_index(
        ids,
        mm_token_type_ids=(ids == model.config.image_token_id).int(),
        image_grid_thw=images["image_grid_thw"],
        attention_mask=mask,
    )[0]


def token_side(config: PretrainedConfig) -> float:
    return config.vision_config.patch_size * config.vision_config.spatial_merge_size


FAMILY = Family(
    model_types=("qwen2_vl", "qwen2_5_vl", "qwen3_vl"),
    limit_pixels=limit_pixels,
    positions=m_rope,
    any_size=True,
    token_side=token_side,
)
