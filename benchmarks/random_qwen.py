"""Qwen3-VL of the published shapes with random weights, and random prompts of exact lengths: what a GPU benchmark needs
where neither the real weights nor the hub are available. Memory and speed depend on shapes, not on weights."""

from __future__ import annotations

import copy
import random

import bitsandbytes as bnb
import numpy as np
import torch
from PIL import Image
from transformers import (
    AutoProcessor,
    BitsAndBytesConfig,
    GenerationConfig,
    PreTrainedModel,
    ProcessorMixin,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
)
from transformers.models.qwen2_vl.image_processing_qwen2_vl import Qwen2VLImageProcessor
from transformers.quantizers.quantizer_bnb_4bit import Bnb4BitHfQuantizer

from lite.models.layers import kept_in_16bit
from lite.models.published import published
from lite.runs import TINY

MROPE = {128: [24, 20, 20], 32: [6, 5, 5]}  # by head_dim; the second is TINY_CONFIG's
PATCH, MERGE = 16, 2
PIXELS_PER_TOKEN = (PATCH * MERGE) ** 2

# For running every line of the benchmark on a CPU.
TINY_CONFIG = Qwen3VLConfig(
    text_config={
        "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 3, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 32, "vocab_size": 2048, "tie_word_embeddings": True,
    },
    vision_config={
        "depth": 2, "hidden_size": 64, "intermediate_size": 128, "num_heads": 4, "out_hidden_size": 128,
        "deepstack_visual_indexes": [0], "patch_size": PATCH, "spatial_merge_size": MERGE, "temporal_patch_size": 2,
        "num_position_embeddings": 2304,
    },
    tie_word_embeddings=True,
)  # fmt: skip


def config_of(name: str) -> Qwen3VLConfig:
    """The configuration of a published model, or of `tiny`. Special tokens are those of the embedded model."""
    own = Qwen3VLConfig.from_pretrained(TINY).to_dict()
    config = copy.deepcopy(TINY_CONFIG if name == "tiny" else published(name))
    for token in ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id"):
        setattr(config, token, own[token])
    text = config.text_config
    text.eos_token_id, text.pad_token_id = own["text_config"]["eos_token_id"], own["text_config"]["pad_token_id"]
    text.max_position_embeddings, text.rms_norm_eps, text.attention_bias = 262_144, 1e-6, False
    text.rope_parameters = {
        "rope_type": "default", "rope_theta": 5_000_000, "mrope_interleaved": True,
        "mrope_section": MROPE[text.head_dim],
    }  # fmt: skip
    return config


def random_model(
    config: Qwen3VLConfig, device: torch.device | str, load_in_4bit: bool = True, dtype: torch.dtype = torch.bfloat16
) -> PreTrainedModel:
    """A Qwen3-VL with random weights, as `lite.models.loading.load_model` gives one with trained ones.

    It is born without memory and filled module by module on the device; a quantised matrix is in 16 bits for as long as
    it takes to quantise it, so that no more than the model and one matrix are ever held.
    """
    torch.manual_seed(0)
    with torch.device("meta"):
        model = Qwen3VLForConditionalGeneration._from_config(config, dtype=dtype)
    if load_in_4bit:
        quantizer = Bnb4BitHfQuantizer(
            BitsAndBytesConfig(
                load_in_4bit=True,
                bnb_4bit_quant_type="nf4",
                bnb_4bit_use_double_quant=True,
                bnb_4bit_compute_dtype=dtype,
                llm_int8_skip_modules=[kept_in_16bit(model)],
            ),
            pre_quantized=False,
        )
        quantizer.preprocess_model(model, device_map=None)
        quantizer.postprocess_model(model)
        model.hf_quantizer = quantizer
    for module in model.modules():
        if isinstance(module, bnb.nn.Linear4bit):
            weight = torch.empty(module.out_features, module.in_features, dtype=dtype, device=device)
            weight.normal_(std=model.config.text_config.initializer_range)
            quantised = bnb.nn.Params4bit(weight, requires_grad=False, **module.weight.__dict__).to(device)
            del weight
            module.weight = quantised
            module.support_avx512bf16_for_cpu = False  # see lite.models.loading
            continue
        own = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
        if any(tensor.is_meta for tensor in own):
            module.to_empty(device=device, recurse=False)
            with torch.no_grad():
                model._init_weights(module)
    model.tie_weights()
    tokens = model.config.text_config
    model.generation_config = GenerationConfig(eos_token_id=tokens.eos_token_id, pad_token_id=tokens.pad_token_id)
    return model.eval()


def random_processor(max_pixels: int) -> ProcessorMixin:
    """Qwen3-VL's image geometry and the embedded model's tokenizer; pads on the left."""
    embedded = AutoProcessor.from_pretrained(TINY)
    geometry = {"patch_size": PATCH, "merge_size": MERGE, "temporal_patch_size": 2}
    processor = Qwen3VLProcessor(
        image_processor=Qwen2VLImageProcessor(
            size={"shortest_edge": PIXELS_PER_TOKEN, "longest_edge": max_pixels}, **geometry
        ),
        tokenizer=embedded.tokenizer,
        video_processor=Qwen3VLVideoProcessor(**geometry),
        chat_template=embedded.chat_template,
    )
    processor.tokenizer.padding_side = "left"
    return processor


def noise(pixels: int, seed: int) -> Image.Image:
    """A square image of random pixels, with sides that are whole tokens."""
    side = int(pixels**0.5) // (PATCH * MERGE) * PATCH * MERGE
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8))


def single_words(processor: ProcessorMixin) -> list[str]:
    """Words that are one token each, wherever they stand in a text of words."""
    tokenizer = processor.tokenizer
    words = [token.replace("Ġ", " ") for token in tokenizer.get_vocab() if token[0] == "Ġ" and token[1:].isalpha()]
    return sorted(word for word in words if len(tokenizer.encode(word, add_special_tokens=False)) == 1)


def random_text(processor: ProcessorMixin, tokens: int, seed: int) -> str:
    """A text of exactly so many tokens."""
    return "".join(random.Random(seed).choices(single_words(processor), k=tokens))


def random_row(processor: ProcessorMixin, tokens: int, images: int, pixels: int, seed: int) -> dict:
    """A row of TRL's data set whose prompt has exactly `tokens` tokens, those of its images included."""
    pictures = [noise(pixels, 1000 * seed + i) for i in range(images)]
    image_tokens = sum(image.width * image.height // PIXELS_PER_TOKEN for image in pictures)

    def prompt(text: str) -> list[dict]:
        return [{"role": "user", "content": [*({"type": "image"} for _ in pictures), {"type": "text", "text": text}]}]

    empty = processor.apply_chat_template(prompt(""), add_generation_prompt=True, tokenize=False)
    used = len(processor.tokenizer(empty, add_special_tokens=False)["input_ids"]) + image_tokens - images
    if used > tokens:
        raise ValueError(f"{images} images of {pixels} pixels take {used} tokens; the prompt must have {tokens}.")
    return {"prompt": prompt(random_text(processor, tokens - used, seed)), "images": pictures}
