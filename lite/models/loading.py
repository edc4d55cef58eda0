"""From a recipe's settings to a 4-bit vision-language model and its processor.

One path loads everything: a hub id, a local folder, or `tiny`, the embedded model, through transformers and
bitsandbytes, or through Unsloth where that is asked for.
"""

from __future__ import annotations

import logging
import os
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import bitsandbytes as bnb
import torch
from peft import LoraConfig, PeftModel
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    AutoProcessor,
    BitsAndBytesConfig,
    PreTrainedModel,
    ProcessorMixin,
)

from lite.config.model import ModelConfig
from lite.hub import give_up_early
from lite.models.fits import check_card
from lite.models.inputs import check_template, limit_pixels, vision_tokens
from lite.models.layers import check_reach, kept_in_16bit, lora_targets, skeleton
from lite.runs import TINY
from lite.schema import LiteError, first_line

logger = logging.getLogger(__name__)

# Read in unsloth 2026.10.7: it compiles the model's layers anew, attention included, forces a static cache on
# `generate`, and turns TRL's switching of gradient checkpointing off. Whether our attention, our decoding and a frozen
# stage 1 survive that, only tests/test_gpu.py can say: it passes on a GPU through transformers; under Unsloth, with its
# compilation, its first test had not ended after 130 s. Without it they pass on a CPU. `auto` changes when they pass on
# a GPU.
UNPROVEN = (
    "backend auto loads through transformers: under Unsloth, that stage 1 stays frozen and the shared prompt exact has "
    "not been tested on a GPU yet. --backend unsloth tries it."
)


def load_model(config: ModelConfig, use_cpu: bool = False) -> tuple[PreTrainedModel, ProcessorMixin]:
    """Load the model in NF4 (vision tower and lm_head in 16 or 32 bits) and its processor with left padding.

    Args:
        use_cpu: Leave a GPU alone, as a recipe's setting of that name has the trainer do.

    Raises:
        LiteError: The model cannot be loaded; the message says why and what to try.
    """
    path = model_path(config.model_name_or_path)
    if not use_cpu:
        check_card()  # before anything is downloaded
    give_up_early(path)
    if choose_backend(config.backend) == "unsloth":
        load = load_with_unsloth
    else:
        load = partial(_load_with_transformers, on_gpu=torch.cuda.is_available() and not use_cpu)
    try:
        model, processor = load(path, config)
    except (OSError, ValueError, KeyError, ImportError, SafetensorError) as error:
        raise LiteError(_explain(path, error)) from error
    return _checked(model, processor, config.max_pixels)


def model_path(name: str) -> str:
    """A hub id or folder as it is; for `tiny` the embedded model's folder."""
    return str(TINY) if name == "tiny" else name


def choose_backend(backend: str) -> str:
    """`unsloth` or `transformers`, for the `backend` setting and this machine."""
    if backend == "unsloth" and not (torch.cuda.is_available() and find_spec("unsloth")):
        raise LiteError(
            "backend: unsloth needs an NVIDIA GPU and the extra `gpu` (recipes/setup.sh installs it where nvidia-smi "
            "answers). Use backend: auto or transformers."
        )
    if backend == "auto":
        if torch.cuda.is_available() and find_spec("unsloth"):
            logger.warning(UNPROVEN)
        return "transformers"
    return backend


def lora_config(config: ModelConfig, model: PreTrainedModel | PeftModel) -> LoraConfig:
    """The adapter of either stage: every linear layer of the language model, none of the vision tower.

    Raises:
        LiteError: LoRA would miss a share of the language model.
    """
    return LoraConfig(
        r=config.lora_r,
        lora_alpha=config.lora_alpha,
        lora_dropout=config.lora_dropout,
        target_modules=lora_targets(model),
        task_type="CAUSAL_LM",
    )


def _checked(
    model: PreTrainedModel, processor: ProcessorMixin, max_pixels: int | None
) -> tuple[PreTrainedModel, ProcessorMixin]:
    """With left padding and images of at most `max_pixels`; refused where something would be silently wrong."""
    processor.tokenizer.padding_side = "left"
    check_template(processor)
    if max_pixels is not None:
        limit_pixels(model, processor, max_pixels)
    vision_tokens(model, processor)
    check_reach(model)
    return model, processor


def _load_with_transformers(path: str, config: ModelConfig, on_gpu: bool) -> tuple[PreTrainedModel, ProcessorMixin]:
    dtype = torch.bfloat16 if on_gpu else torch.float32
    options: dict[str, Any] = {"dtype": dtype}
    if on_gpu:
        options["device_map"] = {"": torch.cuda.current_device()}
    hollow = skeleton(AutoConfig.from_pretrained(path))
    check_reach(hollow)  # before gigabytes are read
    if config.load_in_4bit:
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
            llm_int8_skip_modules=[kept_in_16bit(hollow)],
        )
    model = AutoModelForImageTextToText.from_pretrained(path, **options)
    for module in model.modules():
        if isinstance(module, bnb.nn.Linear4bit):
            # On CPUs with AVX512-BF16, bitsandbytes repacks the weight at the first forward in eval mode into a layout
            # that has no backward, and stays there: LoRA gradients become None without a word.
            module.support_avx512bf16_for_cpu = False
    return model, AutoProcessor.from_pretrained(path)


def load_with_unsloth(path: str, config: ModelConfig) -> tuple[PreTrainedModel, ProcessorMixin]:
    """The model with Unsloth's kernels. TRL's trainers must be imported before: `import unsloth` rewrites them."""
    # Unsloth compiles the model's layers anew, which had not ended after minutes; its kernels do without. It also
    # counts its users unless told not to. Either variable can be set by hand.
    os.environ.setdefault("UNSLOTH_COMPILE_DISABLE", "1")
    os.environ.setdefault("UNSLOTH_DISABLE_STATISTICS", "1")
    from unsloth import FastVisionModel

    # Checkpointing is the trainer's to switch on: Unsloth's own form of it ("unsloth") is lost when TRL does.
    return FastVisionModel.from_pretrained(path, load_in_4bit=config.load_in_4bit, use_gradient_checkpointing=True)


def _explain(path: str, error: Exception) -> str:
    """One sentence on why `path` could not be loaded, and a way on."""
    text = str(error)
    if "gated" in text.lower() or "401" in text or "403" in text:
        reason = "its licence has not been accepted by your account"
        way_on = f"Accept it on the model's page, then `hf auth login`, or choose another model than {path}."
    elif "Unrecognized configuration class" in text or "does not appear to have a file named" in text:
        reason = "it is not a vision-language model that transformers knows"
        way_on = "Choose one, such as unsloth/Qwen3-VL-4B-Instruct-unsloth-bnb-4bit."
    elif isinstance(error, OSError) and not Path(path).exists():
        reason = "it is neither a local folder nor can it be fetched from the hub (no network, or no such id)"
        way_on = "Check the id and the connection, give a local folder, or try --model_name_or_path tiny."
    else:
        reason = f"{type(error).__name__}: {first_line(error)}"
        way_on = "Check the folder's files, or try --model_name_or_path tiny."
    return f"Cannot load the model {path}: {reason}. {way_on}"
