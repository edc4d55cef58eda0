"""Which model, how it is loaded, and the shape of its adapters."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class ModelConfig:
    """Which model, how it is loaded, and the shape of its LoRA adapter. Field names follow TRL's `ModelConfig`."""

    model_name_or_path: str = field(
        default="tiny",
        metadata={"help": "Hugging Face id, local folder, or `tiny`: the embedded model, which knows only flags."},
    )
    backend: str = field(
        default="auto",
        metadata={
            "help": "`transformers`, or `unsloth` (faster kernels; needs an NVIDIA GPU, untested with lite's trainer). "
            "`auto` uses transformers.",
            "choices": ["auto", "unsloth", "transformers"],
        },
    )
    load_in_4bit: bool = field(default=True, metadata={"help": "NF4 weights: a quarter of the memory of 16-bit ones."})
    max_pixels: int | None = field(
        default=None,
        metadata={
            "help": "Pixels per image, at most; larger ones are shrunk. Qwen3-VL reads 32x32 of them as one token."
        },
    )
    lora_r: int = field(default=16, metadata={"help": "Rank of the adapter."})
    lora_alpha: int = field(
        default=32, metadata={"help": "Scale of the adapter: its output is multiplied by lora_alpha / lora_r."}
    )
    lora_dropout: float = field(default=0.0, metadata={"help": "Dropout in the adapter. GRPO needs 0."})
