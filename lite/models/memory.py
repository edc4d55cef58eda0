"""Peak GPU memory of a training run by component, from shapes alone: no weights, no GPU, no network.

The figures are estimates for gradient checkpointing and one packed micro-batch. The terms were set by counting every
tensor of real steps of a Qwen3-VL on a CPU (tests/benchmarks/test_gpu.py: within 12 %); `benchmarks/gpu.py` compares
them with a card.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from lite.models.chunked_logits import positions_at_once
from lite.models.shapes import Shape

if TYPE_CHECKING:
    from lite.config.model import ModelConfig
    from lite.config.runs import StageConfig

GIB = 2**30
NF4_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)  # 4 bits, an 8-bit scale per block of 64, a 32-bit one per 256 blocks
CUDA_CONTEXT = 0.6 * GIB
USABLE = 0.92  # of a card: the rest is for fragments, and for what the estimate does not see
HALF = 2  # bytes of a bfloat16
# A recurrent layer computes in fp32, in chunks of 64 tokens: bytes for each number that enters, and what the backward
# pass keeps of each head and token where flash-linear-attention is not installed.
RECURRENT, CHUNKED = 4 * 8, 4 * 64**2 // 3
MASKS = 4  # bytes for each pair of tokens of a row, where completions repeat their prompt

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


def card_gib() -> float | None:
    """The memory of this machine's GPU, if any."""
    return torch.cuda.get_device_properties(0).total_memory / GIB if torch.cuda.is_available() else None


def run_estimate(
    shape: Shape, config: StageConfig, model_config: ModelConfig, prompt_tokens: int, images: int, adapters: int
) -> dict[str, float]:
    """`estimate` of a run with these settings, whose longest prompt has `prompt_tokens` tokens and `images` images."""
    return estimate(
        shape,
        prompt_tokens=prompt_tokens,
        image_tokens=images * ((model_config.max_pixels or 0) // shape.token_pixels),
        completion_tokens=config.max_completion_length,
        generation_batch=config.per_device_train_batch_size * config.steps_per_generation,
        train_batch=config.per_device_train_batch_size,
        lora_r=model_config.lora_r,
        group=config.num_generations if config.shared_prompt and shape.shared else 1,
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
    weights = shape.quantised() * (NF4_BYTES if load_in_4bit else HALF) + shape.others * HALF

    adapter = shape.adapter(lora_r)
    trained = adapter * (4 + 4 + adam_bytes)  # fp32 weights and gradients
    adapter_bytes = trained + (adapters - 1) * adapter * 4

    generated, trained_prompts = (max(1, batch // group) for batch in (generation_batch, train_batch))
    # All prompts of a generation batch are prefilled at once; of the layers only one is alive at a time.
    kv_cache = generated * shape.cache(prompt_tokens) * HALF
    kv_cache += generation_batch * (shape.cache(completion_tokens, prompt_tokens) * HALF + shape.state * 4)
    # The feed-forward: gate, up, their product, and the copies that PEFT makes of a 4-bit layer's result.
    a_token = max(6 * (shape.hidden + shape.ff) * HALF, RECURRENT * shape.entering)
    masks = 0 if shape.shared else MASKS * (prompt_tokens + completion_tokens) ** 2
    prefill = generated * (prompt_tokens * a_token + masks)

    rows = trained_prompts * prompt_tokens + train_batch * completion_tokens  # tokens of a forward and backward pass
    # What the backward pass of one decoder layer keeps: norms, q, k, v, attention output, three of the feed-forward;
    # the keys and values of its prompt for every completion, and the gradients on their way.
    layer = rows * (6 * shape.hidden + 2 * shape.heads + 3 * shape.ff) * HALF
    layer += train_batch * (prompt_tokens + completion_tokens) * 2 * shape.heads * HALF
    layer += rows * (4 * (2 * shape.hidden + shape.ff) + 3 * shape.ff * HALF)
    layer += rows * (RECURRENT * shape.entering + CHUNKED * shape.recurrent_heads)
    activations = rows * shape.hidden * HALF * shape.layers if checkpointing else shape.layers * layer
    activations += train_batch * masks
    largest = max(inputs * outputs for inputs, outputs in shape.linears) * HALF if load_in_4bit else 0
    image_row = shape.patches * shape.vision * HALF  # the tower learns nothing, so nothing of it is kept
    vision = trained_prompts * image_tokens * image_row
    prefill = max(prefill, generated * image_tokens * image_row)
    one_layer = max(largest + (layer if checkpointing else 0), vision)

    # Autocast returns the logits in fp32; TRL's fused log-softmax keeps them and makes a gradient of their size.
    positions = min(train_batch * (completion_tokens + 1), positions_at_once(shape.vocabulary))
    logits = positions * shape.vocabulary * (4 + 4)

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
