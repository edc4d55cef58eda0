"""Qwen3.5: Qwen3-VL's images and positions; three of four layers keep a state instead of keys and values."""

from __future__ import annotations

from lite.models.families.family import Family
from lite.models.families.qwen_vl import limit_pixels, m_rope, token_side

FAMILY = Family(
    model_types=("qwen3_5",),
    limit_pixels=limit_pixels,
    positions=m_rope,
    state_layers=("linear_attn",),
    # They gate the state, with one output for each head: tiny, and 4 bits would cost them dearly.
    left_out=("in_proj_a", "in_proj_b"),
    any_size=True,
    token_side=token_side,
)
