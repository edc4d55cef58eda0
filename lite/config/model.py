"""Which model, how it is loaded, and the shape of its adapters."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class ModelConfig:
    """Which model, how it is loaded, and the shape of its LoRA adapter. Field names follow TRL's `ModelConfig`."""

    model_name_or_path: str = field(
        default="tiny", metadata={"help": "Hub id, local folder, or `tiny`: the embedded model that knows only flags."}
    )
    backend: str = field(
        default="auto",
        metadata={
            "help": "`transformers`, or `unsloth` (faster kernels; untested with our trainer, needs an NVIDIA GPU). "
            "`auto` takes what is proven: transformers.",
            "choices": ["auto", "unsloth", "transformers"],
        },
    )
    load_in_4bit: bool = field(default=True, metadata={"help": "NF4 weights: a quarter of the memory of 16-bit ones."})
    max_pixels: int | None = field(
        default=None,
        metadata={"help": "Pixels per image after resizing. Qwen3-VL spends one token on 32x32 of them."},
    )
    lora_r: int = field(default=16, metadata={"help": "Rank of the adapter."})
    lora_alpha: int = field(default=32, metadata={"help": "Scale of the adapter: updates count lora_alpha / lora_r."})
    lora_dropout: float = field(default=0.0, metadata={"help": "Dropout in the adapter. GRPO wants 0."})
