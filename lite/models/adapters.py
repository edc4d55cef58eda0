"""Adapters: which are active, which is trained, and what belongs to one besides its weights.

Stage 2's adapter is stacked on stage 1's: both are active, and stage 1's stays as it is.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model, set_peft_model_state_dict
from peft.utils import save_and_load
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import PreTrainedModel

from lite.files import read_json, write_text
from lite.models.layers import base_of, language_layers
from lite.runs import CARD, STAGE1, STAGE2, read_card, write_card
from lite.schema import LiteError

# At every save PEFT asks the hub whether the base's vocabulary was resized, so that it would have to keep embeddings.
# Adapters made by lite never hold any, and nothing connects unless the user asked for it. Remove when transformers'
# trainer can pass `save_embedding_layers=False`.
save_and_load.check_file_exists_on_hf_hub = lambda *_, **__: None
WEIGHTS = "adapter_model.safetensors"

# ----------------------------------------------------------------------------------- what is active and what is trained


def activate(model: PeftModel, names: Sequence[str], trainable: str | None = None) -> None:
    """Make exactly the adapters `names` active (none: the bare base), and only `trainable` learn.

    PEFT's own switches set every active adapter to learn, and `PeftModel.set_adapter` takes one name only.
    """
    if names:
        model.base_model.enable_adapter_layers()
        model.base_model.set_adapter(list(names), inference_mode=True)
    else:
        model.base_model.disable_adapter_layers()
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.requires_grad_(trainable is not None and f".{trainable}." in name)


@contextmanager
def active(model: PeftModel, names: Sequence[str]) -> Iterator[None]:
    """Inside, exactly the adapters `names` are active (none: the bare base); afterwards as before."""
    before = list(model.active_adapters) if model.get_model_status().enabled else []
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    activate(model, names)
    try:
        yield
    finally:
        activate(model, before)
        for parameter in learning:
            parameter.requires_grad_(True)


# ------------------------------------------------------------------------------------------------- weights and cards


def add_adapter(model: PreTrainedModel | PeftModel, config: LoraConfig, name: str) -> PeftModel:
    """A new adapter that does nothing yet."""
    if isinstance(model, PeftModel):
        model.add_adapter(name, config)
        return model
    return get_peft_model(model, config, adapter_name=name)


def copy_weights(model: PeftModel, source: str, target: str) -> None:
    """Give the adapter `target` the weights of `source`; both have the same shape."""
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, parameter in parameters.items():
            if "lora_" in name and f".{target}." in name:
                parameter.copy_(parameters[name.replace(f".{target}.", f".{source}.")])


def load_weights(model: PeftModel, folder: Path, name: str) -> None:
    """Read the weights of the adapter `name`, which the model has already, from `folder`, as float32.

    Raises:
        LiteError: They are more or fewer than the model's.
    """
    weights = read_weights(folder)
    loaded = set_peft_model_state_dict(model, weights, adapter_name=name)
    lacking = [key for key in loaded.missing_keys if f".{name}." in key]
    for odd, word in ((loaded.unexpected_keys, "holds"), (lacking, "lacks")):
        if odd:
            raise LiteError(f"{folder} does not fit this model: it {word} {odd[0]}. Was lora_r or the model changed?")


def read_weights(folder: Path) -> dict[str, torch.Tensor]:
    """The tensors of a saved adapter by name.

    Raises:
        LiteError: Their file is missing or damaged.
    """
    try:
        return load_file(folder / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise LiteError(f"{folder / WEIGHTS} cannot be read ({error}). Train or copy the adapter anew.") from error


def check_shape(folder: Path) -> None:
    """Refuse an adapter's configuration that says anything but what lite writes: PEFT would follow it in whatever it
    knows, importing modules included.

    Raises:
        LiteError: It is missing, damaged, or of another kind of adapter.
    """
    path = folder / "adapter_config.json"
    settings = read_json(path)
    usual = LoraConfig(task_type="CAUSAL_LM", inference_mode=True).to_dict()
    if not isinstance(settings, dict) or settings.get("peft_type") != usual["peft_type"]:
        raise LiteError(f"{path} does not describe a LoRA adapter. Train one with recipes/stage1.sh.")
    right = {
        "r": lambda value: type(value) is int and 0 < value <= 4096,
        "lora_alpha": lambda value: type(value) in (int, float) and 0 < value < 1e6,
        "lora_dropout": lambda value: type(value) in (int, float) and 0 <= value < 1,
        "target_modules": lambda value: isinstance(value, str | list) and all(isinstance(part, str) for part in value),
        "base_model_name_or_path": lambda value: isinstance(value, str | None),
        "peft_version": lambda value: True,
    }
    for name in usual.keys() & settings.keys() | {"r", "lora_alpha", "target_modules"}:
        value = settings.get(name)
        if not (right[name](value) if name in right else value == usual[name] or not value):
            raise LiteError(
                f"{path}: {name!r} is {value!r:.100}, which lite never writes. Train or copy the adapter anew."
            )


def adapter_hash(folder: Path) -> str:
    """SHA-256 over the names and bytes of an adapter's tensors."""
    digest = hashlib.sha256()
    for name, tensor in sorted(read_weights(folder).items()):
        digest.update(name.encode())
        digest.update(tensor.contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def base_fingerprint(model: PreTrainedModel) -> str:
    """Tells base models apart, by their weights and not by their path.

    Only what is never quantised counts (norms, embeddings, vision tower), in bfloat16, one KiB of each tensor: the same
    model has one fingerprint in 4 and in 16 bits, on a CPU and on a GPU.
    """
    digest = hashlib.sha256()
    base = base_of(model)
    quantised = {id(weight) for layer in language_layers(base).values() for weight in layer.parameters()}
    for name, parameter in sorted(base.named_parameters()):
        # Names with `_proj` are skipped for the sake of fingerprints that were taken before layers were told by place.
        if id(parameter) in quantised or "_proj" in name:
            continue
        digest.update(name.encode())
        digest.update(parameter.detach().flatten()[:512].to(torch.bfloat16).view(torch.int16).cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def save_adapter(model: PeftModel, name: str, folder: Path, card: dict) -> None:
    """Write one adapter and its card (base, settings, threshold) to `folder`, as plain PEFT files at its top."""
    model.save_pretrained(folder, selected_adapters=[name])
    nested = folder / name  # PEFT puts adapters that are not named `default` into a folder of their own
    for file in nested.iterdir():
        file.replace(folder / file.name)
    nested.rmdir()
    (folder / "README.md").unlink(missing_ok=True)  # PEFT's empty model card
    settings = read_json(folder / "adapter_config.json")
    settings["base_model_name_or_path"] = card["base"]  # for the embedded model PEFT notes a path of this machine
    write_text(folder / "adapter_config.json", json.dumps(settings, indent=2, sort_keys=True) + "\n")
    write_card(folder, card | {"hash": adapter_hash(folder)})


def load_adapter(model: PreTrainedModel | PeftModel, folder: Path, name: str) -> PeftModel:
    """Load a saved adapter onto its base model, frozen, next to those already loaded.

    Raises:
        LiteError: The adapter was trained on another base model, or its files were changed since.
    """
    card = read_card(folder)
    fingerprint = base_fingerprint(model)
    kind, trained_on = base_of(model).config.model_type, card.get("model_type")
    if trained_on not in (None, kind):  # cards of earlier versions do not say it
        raise LiteError(
            f"The adapter {folder} was trained on a {trained_on} ({card['base']}), and this model is a {kind}. Load "
            "the model that it was trained on."
        )
    if card["base_fingerprint"] != fingerprint:
        raise LiteError(
            f"The adapter {folder} was trained on {card['base']} (fingerprint {card['base_fingerprint']}), "
            f"but this model has the fingerprint {fingerprint}. Load the base that it was trained on."
        )
    if adapter_hash(folder) != card["hash"]:
        raise LiteError(f"The weights in {folder} are not those that its {CARD} describes. Train or copy them anew.")
    check_shape(folder)
    try:
        if isinstance(model, PeftModel):
            model.load_adapter(folder, adapter_name=name, autocast_adapter_dtype=True)
            return model
        return PeftModel.from_pretrained(model, folder, adapter_name=name)
    except torch.OutOfMemoryError:
        raise
    except (ValueError, TypeError, RuntimeError, re.error) as error:
        reason = " ".join(str(error).split())[:300]
        raise LiteError(f"{folder} does not fit its base model: {reason} Train or copy the adapter anew.") from error


def load_stack(model: PreTrainedModel, stage1: Path | None, stage2: Path | None) -> PeftModel | PreTrainedModel:
    """Put the saved adapters on their base; which of them are active is the caller's to say, see `active`.

    Raises:
        LiteError: Stage 2 was trained on another base, or stacked on another stage 1 than the one given.
    """
    if stage1 is not None:
        model = load_adapter(model, stage1, STAGE1)
    if stage2 is None:
        return model
    card = read_card(stage2)
    wanted = card.get("stage1_hash") if STAGE1 in card.get("active", []) else None
    given = read_card(stage1)["hash"] if stage1 is not None else None
    if wanted is not None and wanted != given:
        raise LiteError(
            f"The stage 2 adapter {stage2} was trained on the stage 1 adapter with hash {wanted[:12]}, but "
            + (f"{stage1} has {given[:12]}." if given else "none is given.")
            + " Give the stage 1 adapter that it was trained on, or train stage 2 again with recipes/stage2.sh."
        )
    return load_adapter(model, stage2, STAGE2)
