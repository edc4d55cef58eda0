"""Whether a model fits into free memory, from its configuration alone."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import psutil
import torch
from transformers import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING, AutoConfig

from lite.models.hub import CHOOSE
from lite.models.layers import language_layers, skeleton
from lite.models.memory import GIB, NF4_BYTES
from lite.runs import LAPTOP
from lite.schema import LiteError, first_line

WORKING = 0.75 * GIB  # for activations, keys and values while documents are scored and an answer is generated
CGROUPS = (  # of limit and use: version 2, then version 1
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)


def check_card() -> None:
    """Refuse a GPU without bfloat16, such as Colab's T4: models of these families overflow in float16.

    Raises:
        LiteError: It names the GPU, and what to do.
    """
    if torch.cuda.is_available() and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise LiteError(
            f"This GPU ({torch.cuda.get_device_name()}) cannot compute in bfloat16, which lite needs. Take one of the "
            "Ampere generation or newer (RTX 30, A10, L4), or the CPU: put CUDA_VISIBLE_DEVICES= before the command."
        )


def free_memory() -> int:
    """Bytes that this process may still take: of the GPU's, else of the machine's or, in a container, of its share."""
    if torch.cuda.is_available():
        return torch.cuda.mem_get_info()[0]
    return free_ram()


def free_ram() -> int:
    """Bytes of the machine's memory that this process may still take."""
    free = psutil.virtual_memory().available
    for limit, used in CGROUPS:
        try:
            free = min(free, int(Path(limit).read_text()) - int(Path(used).read_text()))
        except (OSError, ValueError):  # no such group, or `max`
            continue
    return max(free, 0)


def fit(folder: Path, name: str) -> bool:
    """Whether the model must be loaded in 4 bits to fit; where there is room, its weights stay as they were published.

    Args:
        folder: With its configuration.
        name: For messages.

    Raises:
        LiteError: It does not fit at all, or the GPU is too old.
    """
    check_card()
    published, packed, is_packed = needed(folder, name)
    free = free_memory()
    if free >= published and not is_packed:
        return False
    if free < packed:
        where = "the GPU" if torch.cuda.is_available() else "this machine"
        raise LiteError(
            f"{name} needs about {packed / GIB:.1f} GiB of memory, and {free / GIB:.1f} GiB of {where} are free. Close "
            f"other programs, or choose a smaller model: --model {LAPTOP}."
        )
    return True


@lru_cache
def needed(folder: Path, name: str) -> tuple[float, float, bool]:
    """Bytes that asking a model takes with its weights as published (as float32 on a CPU) and in NF4, and whether they
    are published in 4 bits.

    Raises:
        LiteError: transformers cannot read its configuration.
    """
    try:
        config = AutoConfig.from_pretrained(folder)
        known = type(config) in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING
        hollow = skeleton(config) if known else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ImportError) as error:
        reason = f"{type(error).__name__}: {first_line(error)}"
        raise LiteError(f"transformers cannot read the configuration of {name} ({reason:.300}). {CHOOSE}") from error
    if hollow is None:
        raise LiteError(f"{name} ({config.model_type}) is no vision-language model that transformers knows. {CHOOSE}")
    each = 2 if torch.cuda.is_available() else 4
    quantised = {id(layer.weight) for layer in language_layers(hollow).values()}
    sizes = [(parameter.numel(), id(parameter) in quantised) for parameter in hollow.parameters()]
    published = sum(count for count, _ in sizes) * each
    packed = sum(count * (NF4_BYTES if small else each) for count, small in sizes)
    return published + WORKING, packed + WORKING, getattr(config, "quantization_config", None) is not None
