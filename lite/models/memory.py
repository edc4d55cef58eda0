"""Peak GPU memory of a training run by component, from shapes alone: no weights, no GPU, no network.

The three Qwen3-VL of the recipes are described here; of any other the configuration is read. The
figures are estimates for gradient checkpointing and one packed micro-batch. The terms were set by counting every tensor
of real steps on a CPU (tests/test_gpu_benchmark.py: within 12 %); `benchmarks/gpu.py` compares them with a card.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from transformers import AutoConfig, PretrainedConfig

from lite.hub import give_up_early

if TYPE_CHECKING:
    from lite.config.model import ModelConfig
    from lite.config.runs import StageConfig

GIB = 2**30
NF4_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)  # 4 bits, an 8-bit scale per block of 64, a 32-bit one per 256 blocks
CUDA_CONTEXT = 0.6 * GIB
USABLE = 0.92  # of a card: the rest is for fragments, and for what the estimate does not see
PIXELS_PER_TOKEN = 32 * 32  # of Qwen3-VL
HALF = 2  # bytes of a bfloat16

# What the memory of a training run is needed for, and what to lower first where it does not fit: of each pair, the
# first setting changes less of what is learnt.
LOADING, GENERATING = "loading", "generation"
SCORING, TRAINING = "the reference's log-probs", "the forward and backward pass"
REMEDIES = {
    LOADING: "the model's size, then lora_r",
    GENERATING: "steps_per_generation (completions at once), then max_pixels",
    SCORING: "max_completion_length, then max_pixels",
    TRAINING: "per_device_train_batch_size (and double gradient_accumulation_steps), then max_completion_length",
}

VISION_24 = {"depth": 24, "hidden_size": 1024, "intermediate_size": 4096, "deepstack": 3}
VISION_27 = {"depth": 27, "hidden_size": 1152, "intermediate_size": 4304, "deepstack": 3}
# Source: config.json of Qwen/Qwen3-VL-{2B,4B,8B}-Instruct.
PUBLISHED = {
    "2B": {"hidden": 2048, "ff": 6144, "layers": 28, "heads": 16, "kv_heads": 8, "tied": True, "vision": VISION_24},
    "4B": {"hidden": 2560, "ff": 9728, "layers": 36, "heads": 32, "kv_heads": 8, "tied": True, "vision": VISION_24},
    "8B": {"hidden": 4096, "ff": 12288, "layers": 36, "heads": 32, "kv_heads": 8, "tied": False, "vision": VISION_27},
}


def card_gib() -> float | None:
    """The memory of this machine's GPU, if any."""
    return torch.cuda.get_device_properties(0).total_memory / GIB if torch.cuda.is_available() else None


@dataclass(frozen=True)
class Shape:
    """What the memory of a Qwen3-VL depends on."""

    hidden: int
    ff: int
    layers: int
    heads: int
    kv_heads: int
    tied: bool
    vision: dict[str, int]
    head_dim: int = 128
    vocabulary: int = 151_936

    def linears(self) -> list[tuple[int, int]]:
        """(inputs, outputs) of the seven quantised matrices of one layer."""
        query, key = self.heads * self.head_dim, self.kv_heads * self.head_dim
        attention = [(self.hidden, query), (self.hidden, key), (self.hidden, key), (query, self.hidden)]
        return [*attention, (self.hidden, self.ff), (self.hidden, self.ff), (self.ff, self.hidden)]

    def vision_weights(self) -> int:
        """Weights of the vision tower, its merger and its deepstack mergers."""
        width, merged = self.vision["hidden_size"], 4 * self.vision["hidden_size"]
        block = 4 * width**2 + 2 * width * self.vision["intermediate_size"]
        merger = merged**2 + merged * self.hidden
        return self.vision["depth"] * block + (1 + self.vision["deepstack"]) * merger


def shape_of(model: str) -> Shape | None:
    """The shape of a hub id or a local folder, or None where it is not a Qwen3-VL or nothing is known about it."""
    for size, published in PUBLISHED.items():
        if f"Qwen3-VL-{size}" in model:
            return Shape(**published)
    give_up_early(model)
    try:
        config = AutoConfig.from_pretrained(model)
    except (OSError, ValueError):
        return None
    return _from_config(config) if config.model_type == "qwen3_vl" else None


def _from_config(config: PretrainedConfig) -> Shape:
    text, vision = config.text_config, config.vision_config
    return Shape(
        hidden=text.hidden_size,
        ff=text.intermediate_size,
        layers=text.num_hidden_layers,
        heads=text.num_attention_heads,
        kv_heads=text.num_key_value_heads,
        tied=config.tie_word_embeddings,
        vision={
            "depth": vision.depth,
            "hidden_size": vision.hidden_size,
            "intermediate_size": vision.intermediate_size,
            "deepstack": len(vision.deepstack_visual_indexes),
        },
        head_dim=text.head_dim,
        vocabulary=text.vocab_size,
    )


def run_estimate(
    shape: Shape, config: StageConfig, model_config: ModelConfig, prompt_tokens: int, images: int, adapters: int
) -> dict[str, float]:
    """`estimate` of a run with these settings, whose longest prompt has `prompt_tokens` tokens and `images` images."""
    return estimate(
        shape,
        prompt_tokens=prompt_tokens,
        image_tokens=images * ((model_config.max_pixels or 0) // PIXELS_PER_TOKEN),
        completion_tokens=config.max_completion_length,
        generation_batch=config.per_device_train_batch_size * config.steps_per_generation,
        train_batch=config.per_device_train_batch_size,
        lora_r=model_config.lora_r,
        group=config.num_generations if config.shared_prompt else 1,
        adapters=adapters,
        load_in_4bit=model_config.load_in_4bit,
        adam_bytes=2 if "8bit" in config.optim else 8,
        checkpointing=config.gradient_checkpointing,
    )


def estimate(
    shape: Shape,
    prompt_tokens: int,
    image_tokens: int,
    completion_tokens: int,
    generation_batch: int,
    train_batch: int,
    lora_r: int,
    group: int = 1,
    adapters: int = 1,
    load_in_4bit: bool = True,
    adam_bytes: int = 8,
    checkpointing: bool = True,
) -> dict[str, float]:
    """GiB by component, for the worst batch: every prompt of the longest length.

    Args:
        shape: The model's.
        prompt_tokens: Of the longest prompt, images included.
        image_tokens: Of its images.
        completion_tokens: `max_completion_length`.
        generation_batch: Completions that are generated at once.
        train_batch: Completions per forward and backward pass.
        lora_r: Rank.
        group: Completions that share one computation of their prompt; 1 where every completion repeats it.
        adapters: How many adapters are loaded; one of them is trained.
        load_in_4bit: NF4 or bfloat16 weights.
        adam_bytes: Optimiser state per trained weight: 8 for AdamW, 2 for its 8-bit form.
        checkpointing: Gradient checkpointing.
    """
    linear_weights = shape.layers * sum(inputs * outputs for inputs, outputs in shape.linears())
    embeddings = shape.vocabulary * shape.hidden * (1 if shape.tied else 2)
    weights = linear_weights * (NF4_BYTES if load_in_4bit else HALF) + (embeddings + shape.vision_weights()) * HALF

    adapter = shape.layers * lora_r * sum(inputs + outputs for inputs, outputs in shape.linears())
    trained = adapter * (4 + 4 + adam_bytes)  # fp32 weights and gradients
    adapter_bytes = trained + (adapters - 1) * adapter * 4

    generated, trained_prompts = (max(1, batch // group) * prompt_tokens for batch in (generation_batch, train_batch))
    # All prompts of a generation batch are prefilled at once; of the layers only one is alive at a time.
    cached = generated + generation_batch * completion_tokens
    kv_cache = cached * shape.layers * 2 * shape.kv_heads * shape.head_dim * HALF
    # The feed-forward: gate, up, their product, and the copies that PEFT makes of a 4-bit layer's result.
    prefill = generated * 6 * (shape.hidden + shape.ff) * HALF

    rows = trained_prompts + train_batch * completion_tokens  # tokens of a forward and backward pass
    heads = shape.heads * shape.head_dim
    # What the backward pass of one decoder layer keeps: norms, q, k, v, attention output, three of the feed-forward;
    # the keys and values of its prompt for every completion, and the gradients on their way.
    layer = rows * (6 * shape.hidden + 2 * heads + 3 * shape.ff) * HALF
    layer += train_batch * (prompt_tokens + completion_tokens) * 2 * heads * HALF
    layer += rows * (4 * (2 * shape.hidden + shape.ff) + 3 * shape.ff * HALF)
    activations = rows * shape.hidden * HALF * shape.layers if checkpointing else shape.layers * layer
    largest = max(inputs * outputs for inputs, outputs in shape.linears()) * HALF if load_in_4bit else 0
    vision_row = 4 * (4 * shape.vision["hidden_size"] + 2 * shape.vision["intermediate_size"]) * HALF
    vision = max(1, train_batch // group) * image_tokens * vision_row  # it learns nothing, so nothing of it is kept
    prefill = max(prefill, max(1, generation_batch // group) * image_tokens * vision_row)
    one_layer = max(largest + (layer if checkpointing else 0), vision)

    # Autocast returns the logits in fp32; TRL's fused log-softmax keeps them and makes a gradient of their size.
    logits = train_batch * (completion_tokens + 1) * shape.vocabulary * (4 + 4)

    generation = kv_cache + prefill + largest
    # The vision tower has run before the first layer, and the logits are gone before a layer is computed again.
    training = activations + max(one_layer, logits)
    return {
        "4-bit weights" if load_in_4bit else "weights": weights / GIB,
        "adapters and optimiser": adapter_bytes / GIB,
        "generation: KV cache": kv_cache / GIB,
        "generation: prefill": (prefill + largest) / GIB,
        "training: activations": activations / GIB,
        "training: one layer": one_layer / GIB,
        "training: logits": logits / GIB,
        "CUDA context": CUDA_CONTEXT / GIB,
        # generation and training do not overlap, nor do a layer and the logits: the larger one counts
        "peak": (weights + adapter_bytes + max(generation, training) + CUDA_CONTEXT) / GIB,
    }
