"""Configurations of the recipes' models, for estimates where the hub is out of reach. What a hub or a folder says wins.

Only what memory depends on is given.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from transformers import PretrainedConfig, Qwen3_5Config, Qwen3VLConfig, SmolVLMConfig

TOWERS = {  # of Qwen, by depth: width, feed-forward, heads
    12: (768, 3072, 12),
    24: (1024, 4096, 16),
    27: (1152, 4304, 16),
}
DEEPSTACK = {24: [5, 11, 17], 27: [8, 16, 24]}


def published(name: str) -> PretrainedConfig | None:
    """The configuration of a model whose hub id, or the path of its folder, holds the name of one that is known."""
    return next((config() for part, config in PUBLISHED.items() if part in name), None)


def _tower(depth: int, hidden: int) -> dict:
    width, ff, heads = TOWERS[depth]
    return {
        "depth": depth, "hidden_size": width, "intermediate_size": ff, "num_heads": heads, "out_hidden_size": hidden,
        "patch_size": 16, "spatial_merge_size": 2, "temporal_patch_size": 2, "num_position_embeddings": 2304,
    }  # fmt: skip


def _text(hidden: int, ff: int, layers: int, heads: int, kv_heads: int, tied: bool, **more: int) -> dict:
    return {
        "hidden_size": hidden, "intermediate_size": ff, "num_hidden_layers": layers, "num_attention_heads": heads,
        "num_key_value_heads": kv_heads, "tie_word_embeddings": tied,
    } | more  # fmt: skip


def _qwen3_vl(hidden: int, ff: int, layers: int, heads: int, tied: bool, depth: int) -> Qwen3VLConfig:
    return Qwen3VLConfig(
        text_config=_text(hidden, ff, layers, heads, 8, tied, head_dim=128, vocab_size=151_936),
        vision_config=_tower(depth, hidden) | {"deepstack_visual_indexes": DEEPSTACK[depth]},
        tie_word_embeddings=tied,
    )


def _qwen3_5(
    hidden: int, ff: int, layers: int, heads: int, kv_heads: int, states: int, tied: bool, depth: int
) -> Qwen3_5Config:
    more = {"linear_num_value_heads": states, "linear_num_key_heads": 16, "linear_key_head_dim": 128}
    more |= {"linear_value_head_dim": 128, "head_dim": 256, "vocab_size": 248_320}
    return Qwen3_5Config(
        text_config=_text(hidden, ff, layers, heads, kv_heads, tied, **more),
        vision_config=_tower(depth, hidden),
        tie_word_embeddings=tied,
    )


def _smolvlm2(hidden: int, ff: int, layers: int, heads: int, kv_heads: int) -> SmolVLMConfig:
    vision = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
    text = _text(hidden, ff, layers, heads, kv_heads, False, head_dim=64, vocab_size=49_280)
    return SmolVLMConfig(
        text_config={"model_type": "llama"} | text,
        vision_config=vision | {"image_size": 512, "patch_size": 16},
        scale_factor=4,
        tie_word_embeddings=False,
    )


# From the config.json of Qwen/Qwen3-VL-*-Instruct, Qwen/Qwen3.5-* and HuggingFaceTB/SmolVLM2-*-Video-Instruct.
PUBLISHED: dict[str, Callable[[], PretrainedConfig]] = {
    "Qwen3-VL-2B": partial(_qwen3_vl, 2048, 6144, 28, 16, True, 24),
    "Qwen3-VL-4B": partial(_qwen3_vl, 2560, 9728, 36, 32, True, 24),
    "Qwen3-VL-8B": partial(_qwen3_vl, 4096, 12288, 36, 32, False, 27),
    "Qwen3.5-0.8B": partial(_qwen3_5, 1024, 3584, 24, 8, 2, 16, True, 12),
    "Qwen3.5-2B": partial(_qwen3_5, 2048, 6144, 24, 8, 2, 16, True, 24),
    "Qwen3.5-4B": partial(_qwen3_5, 2560, 9216, 32, 16, 4, 32, True, 24),
    "Qwen3.5-9B": partial(_qwen3_5, 4096, 12288, 32, 16, 4, 32, False, 27),
    "SmolVLM2-256M": partial(_smolvlm2, 576, 1536, 30, 9, 3),
    "SmolVLM2-500M": partial(_smolvlm2, 960, 2560, 32, 15, 5),
}
