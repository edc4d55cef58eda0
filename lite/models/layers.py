"""Which layers belong to the language model: they are quantised and adapted, and no others are.

That follows from where modules stand in the model, not from their names.
"""

from __future__ import annotations

import re

import torch
from accelerate.utils import extract_model_from_parallel
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from transformers import AutoModelForImageTextToText, PretrainedConfig, PreTrainedModel

from lite.models.families import family_of
from lite.schema import LiteError


def base_of(model: PreTrainedModel | PeftModel) -> PreTrainedModel:
    """The transformers model under an adapter and what distributes it, or the model itself."""
    model = extract_model_from_parallel(model, keep_fp32_wrapper=True)
    return model.get_base_model() if isinstance(model, PeftModel) else model


def skeleton(config: PretrainedConfig) -> PreTrainedModel:
    """The model of a configuration without weights: in a second, and in no memory."""
    with torch.device("meta"):
        return AutoModelForImageTextToText.from_config(config)


def language_prefix(model: PreTrainedModel | PeftModel) -> str:
    """The full name of the language model within the model, without the output layer.

    Raises:
        LiteError: The language model is no module of its own.
    """
    base = base_of(model)
    decoder = base.get_decoder()
    if decoder in (base, base.base_model):
        raise LiteError(
            f"lite cannot tell the language model of {base.config.model_type} from its vision tower, so it does not "
            "know what to quantise and to train. Choose a model of another family, see docs/training.md."
        )
    return next(name for name, module in base.named_modules() if module is decoder)


def language_layers(model: PreTrainedModel | PeftModel) -> dict[str, torch.nn.Module]:
    """The language model's linear layers by full name, in LoRA or not, less those that its family leaves out."""
    base, prefix = base_of(model), language_prefix(model)
    left_out = family_of(base.config).left_out
    found: dict[str, torch.nn.Module] = {}
    for name, module in base.named_modules():
        of_lora = any(f".{part}." in f"{name}." for part in ("base_layer", "lora_A", "lora_B"))
        if name.startswith(f"{prefix}.") and isinstance(module, torch.nn.Linear | LoraLayer) and not of_lora:
            found[name] = module
    return {name: layer for name, layer in found.items() if name.rpartition(".")[2] not in left_out}


def kept_in_16bit(model: PreTrainedModel) -> str:
    """A regular expression of the modules that are not quantised, matched from the start of a full name."""
    left_out = family_of(model.config).left_out
    others = rf"(?!{re.escape(language_prefix(model))}\.)"
    return rf"({others}|.*\.({'|'.join(left_out)})$)" if left_out else others


def lora_targets(model: PreTrainedModel | PeftModel) -> str:
    """A regular expression of the full names of the layers that LoRA adapts: all of `language_layers`.

    Raises:
        LiteError: LoRA would not reach all that it should.
    """
    check_reach(model)
    names = sorted({name.rpartition(".")[2] for name in language_layers(model)})
    return rf"(.*\.)?{re.escape(language_prefix(model))}\.(.*\.)?({'|'.join(names)})"


def check_reach(model: PreTrainedModel | PeftModel) -> None:
    """Refuse a model whose language model has no linear layers, or weights that LoRA would miss.

    Raises:
        LiteError: It says which.
    """
    base, prefix = base_of(model), language_prefix(model)
    left_out = family_of(base.config).left_out
    if not language_layers(base):
        raise LiteError(
            f"LoRA would reach no layer of {base.config.model_type}: its language model, {prefix}, has no linear "
            "layers. Choose a model of another family, see docs/training.md."
        )
    known = torch.nn.Linear | LoraLayer | torch.nn.Embedding | torch.nn.Conv1d
    for name, module in base.named_modules():
        if not name.startswith(f"{prefix}.") or isinstance(module, known) or ".lora_" in name:
            continue
        if name.rpartition(".")[2] in left_out:
            continue
        for weight, values in module.named_parameters(recurse=False):
            if values.ndim > 1:
                raise LiteError(
                    f"LoRA would miss {name}.{weight} of {base.config.model_type}, which is no linear layer (a mixture "
                    "of experts?), so a large share of the model would not learn. Choose a dense model."
                )
