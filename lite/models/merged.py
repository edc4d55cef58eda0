"""Reading from a model with adapters: each layer as one matrix for a while, or its adapters in its own precision."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import accumulate

import bitsandbytes as bnb
import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from transformers import PreTrainedModel

from lite.models.fits import free_ram

logger = logging.getLogger(__name__)

MERGED_AT_MOST: int | None = None  # bytes; None: as far as free memory allows
SHARE = 0.75  # of free memory that may be taken: the rest is for activations, keys and values
SAMPLING_SHARE = 0.5  # of the memory that is free before training


@contextmanager
def merged(model: PreTrainedModel | PeftModel) -> Iterator[None]:
    """Inside, each 4-bit layer is one matrix: its unpacked weights plus the adapters that act.

    The same function, for reading only, and what acts must not change inside. A CPU unpacks a layer at every forward
    and adds each adapter by two small products: a token at a time, that takes longer than all else together
    (`benchmarks/merged.py`). Nothing happens on a GPU, whose kernels read packed weights, in 16 bits, where the sum
    would be rounded. Layers that would take more than `MERGED_AT_MOST` together stay packed, from the last on.
    """
    layers = _quantised(model) if exact(model) else {}
    room = SHARE * free_ram() if MERGED_AT_MOST is None else MERGED_AT_MOST
    sizes = accumulate(4 * layer.in_features * layer.out_features for layer in layers.values())
    with _matrices({m: layer for (m, layer), size in zip(layers.items(), sizes, strict=True) if size <= room}):
        yield


def exact(model: PreTrainedModel | PeftModel) -> bool:
    """Whether merging rounds nothing: in float32. A GPU computes in 16 bits."""
    return model.device.type == "cpu" and model.dtype == torch.float32


def choose_weights(model: PreTrainedModel | PeftModel, asked: str) -> str:
    """`merged` or `packed`, for the setting `sampling_weights` and the memory that is free now."""
    takes = 2 * sum(layer.in_features * layer.out_features for layer in _quantised(model).values())
    if asked == "packed" or exact(model) or not takes:
        return "packed"
    free = torch.cuda.mem_get_info()[0] if model.device.type == "cuda" else free_ram()
    if takes <= SAMPLING_SHARE * free:
        return "merged"
    if asked == "merged":
        logger.warning(
            "sampling_weights: merged would take %.1f GiB, and %.1f GiB are free, half of which is left for keys, "
            "values and training: sampling with packed weights.", takes / 2**30, free / 2**30,
        )  # fmt: skip
    return "packed"


@contextmanager
def sampling(model: PreTrainedModel | PeftModel, weights: str = "packed") -> Iterator[None]:
    """`merged` in float32 on a CPU, where it is exact. Elsewhere as `weights` says.

    packed: the active adapters are in the model's precision. PEFT computes them in float32, with casts to it and back
    (`benchmarks/decoding.py` counts the operations). The policy's log-probs are computed under autocast, which rounds
    adapters to 16 bits, too. Dropout is left out.

    merged: each 4-bit layer is one matrix in the model's precision, so that nothing is unpacked for each token. Its
    rounding is not that of the policy: correct it by importance sampling.
    """
    if exact(model):
        with merged(model):
            yield
    elif weights == "merged":
        with _matrices(_quantised(model), model.dtype):
            yield
    else:
        layers = [module for module in model.modules() if isinstance(module, LoraLayer) and _is_plain(module)]
        with _undone(layers):
            for module in layers:
                module.forward = _adapted(module, model.dtype)
            yield


def _quantised(model: PreTrainedModel | PeftModel) -> dict[torch.nn.Module, bnb.nn.Linear4bit]:
    """The 4-bit layers by the module that is called: the layer itself, or plain LoRA around it."""
    layers: dict[torch.nn.Module, bnb.nn.Linear4bit] = {}
    around = set()
    for module in model.modules():
        layer = module.get_base_layer() if isinstance(module, LoraLayer) else module
        if isinstance(layer, bnb.nn.Linear4bit) and layer not in around:
            around.add(layer)
            if not isinstance(module, LoraLayer) or _is_plain(module):
                layers[module] = layer
    return layers


@contextmanager
def _matrices(layers: dict[torch.nn.Module, bnb.nn.Linear4bit], dtype: torch.dtype = torch.float32) -> Iterator[None]:
    with _undone(layers):
        for module, layer in layers.items():
            weight = _merged_weight(module, layer).to(dtype)
            module.forward = partial(torch.nn.functional.linear, weight=weight, bias=layer.bias)
        yield


@contextmanager
def _undone(modules: Iterable[torch.nn.Module]) -> Iterator[None]:
    """Take what is put in place of the modules' forward away at the end."""
    try:
        yield
    finally:
        for module in modules:
            module.__dict__.pop("forward", None)


@torch.no_grad()
def _adapted(module: LoraLayer, dtype: torch.dtype) -> Callable[[torch.Tensor], torch.Tensor]:
    """The layer's forward with its active adapters in `dtype`, one added after the other, as the policy adds them.

    As one adapter, side by side, two would take two operations fewer. But their sum is then rounded once, and the
    embedded model's log-probs were twice as far from the policy's.
    """
    layer = module.get_base_layer()
    names = [] if module.disable_adapters else [name for name in module.active_adapters if name in module.lora_A]
    adapters = [
        (
            module.lora_A[name].weight.to(dtype).T,
            (module.lora_B[name].weight * module.scaling[name]).to(dtype).T,
        )
        for name in names
    ]

    def forward(states: torch.Tensor) -> torch.Tensor:
        result = layer(states)
        rows, shape = states.view(-1, states.shape[-1]), result.shape
        total = result.view(-1, shape[-1])
        for down, up in adapters:
            total = torch.addmm(total, rows @ down, up)
        return total.view(shape)

    return forward if names else layer.forward


def _is_plain(module: LoraLayer) -> bool:
    """Whether all it does is to add products: no DoRA or the like, no bias of its own."""
    return not module.lora_variant and not any(module.lora_bias.values())


@torch.no_grad()
def _merged_weight(module: torch.nn.Module, layer: bnb.nn.Linear4bit) -> torch.Tensor:
    state = copy.copy(layer.weight.quant_state)
    state.dtype = torch.float32  # else packed 16-bit weights would come back rounded to 16 bits, unlike in the layer
    weight = bnb.functional.dequantize_4bit(layer.weight.data, state)
    if isinstance(module, LoraLayer) and not module.disable_adapters:
        for name in module.active_adapters:
            if name in module.lora_A:
                weight = weight + module.get_delta_weight(name)
    return weight
