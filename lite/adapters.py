"""What belongs to an adapter besides its weights: which base it was trained on, and how it is to be used."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import PreTrainedModel

from lite.schema import LiteError

CARD = "lite.json"


def adapter_hash(folder: Path) -> str:
    """SHA-256 over the names and bytes of an adapter's tensors."""
    digest = hashlib.sha256()
    for name, tensor in sorted(load_file(folder / "adapter_model.safetensors").items()):
        digest.update(name.encode())
        digest.update(tensor.contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def base_fingerprint(model: PreTrainedModel) -> str:
    """Tells base models apart, by their weights and not by their path.

    Only what is never quantised counts (norms, embeddings, vision tower), in bfloat16, one KiB of each tensor: the same
    model has one fingerprint in 4 and in 16 bits, on a CPU and on a GPU.
    """
    digest = hashlib.sha256()
    for name, parameter in sorted(model.named_parameters()):
        if "lora_" in name or "_proj" in name:
            continue
        digest.update(name.replace("base_model.model.", "").encode())
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
    write_card(folder, card | {"hash": adapter_hash(folder)})


def write_card(folder: Path, card: dict) -> None:
    (folder / CARD).write_text(json.dumps(card, indent=2) + "\n")


def read_card(folder: Path) -> dict:
    """The card of a saved adapter."""
    if not (folder / CARD).exists():
        raise LiteError(f"{folder} holds no adapter of ours ({CARD} is missing). Train one with recipes/stage1.sh.")
    return json.loads((folder / CARD).read_text())


def load_adapter(model: PreTrainedModel, folder: Path, name: str) -> PeftModel:
    """Put a saved adapter on its base model.

    Raises:
        LiteError: The adapter was trained on another base model.
    """
    card = read_card(folder)
    fingerprint = base_fingerprint(model)
    if card["base_fingerprint"] != fingerprint:
        raise LiteError(
            f"The adapter {folder} was trained on {card['base']} (fingerprint {card['base_fingerprint']}), "
            f"but the model at hand has the fingerprint {fingerprint}. Load the base that it was trained on."
        )
    return PeftModel.from_pretrained(model, folder, adapter_name=name)
