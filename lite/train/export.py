"""A trained run as files that others can load without this package: one ordinary PEFT adapter, or a merged model."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from peft import PeftModel

from lite.config.model import ModelConfig
from lite.data.sources import split_mix
from lite.files import write_text
from lite.models.adapters import activate, load_stack, save_adapter
from lite.models.loading import load_model
from lite.runs import STAGE1, STAGE2, read_card, stage1_of
from lite.schema import LiteError
from lite.train.model_card import model_card

JOINED = "joined"


def export(run: Path, out: Path, merge: bool = False) -> Path:
    """Write the run's adapters as one.

    Stage 1 and stage 2 are joined by concatenating their low-rank matrices, which is exact: the joined adapter's rank
    is the sum of theirs. With `merge` the adapters are added to the base in 16 bits instead (never to 4-bit weights,
    where it would lose precision for good), and a whole model is written.

    Args:
        run: A run folder of either stage.
        out: A new folder.
        merge: Write a model instead of an adapter.

    Returns:
        `out`.

    Raises:
        LiteError: There is no adapter, it does not fit its base or its stage 1, or `out` is not empty.
    """
    if out.exists() and any(out.iterdir()):
        raise LiteError(f"{out} is not empty. Give a new folder.")
    card = read_card(run / "adapter")
    stages = stages_of(run)
    names = list(stages)
    # a pre-quantised base has its 16-bit twin under the same name without the ending
    name = re.sub(r"-(unsloth-)?bnb-4bit$", "", card["base"]) if merge else card["base"]
    config = ModelConfig(
        model_name_or_path=name, max_pixels=card["max_pixels"], backend="transformers", load_in_4bit=not merge
    )
    base, processor = load_model(config)
    model = load_stack(base, stages.get(STAGE1), stages.get(STAGE2))
    card = {key: value for key, value in card.items() if key != "active"} | {"joined": names, "base": name}
    card["data"] = public_data(card["data"])
    if merge:
        activate(model, names)
        merged = model.merge_and_unload(adapter_names=names)
        merged.to(torch.bfloat16).save_pretrained(out)
        processor.save_pretrained(out)
    else:
        join(model, names)
        save_adapter(model, JOINED, out, card)
    write_text(out / "README.md", model_card(run, card, merge))
    return out


def stages_of(run: Path) -> dict[str, Path]:
    """The adapters that a run's answers come from, by stage: its own, and the one that it is stacked on."""
    adapter = run / "adapter"
    card = read_card(adapter)
    if card["stage"] != STAGE2:
        return {STAGE1: adapter}
    return ({STAGE1: stage1_of(adapter)} if STAGE1 in card["active"] else {}) | {STAGE2: adapter}


def public_data(data: str) -> str:
    """The names of data sets without the paths of this machine."""
    return ",".join(part.partition(":")[0] for part in split_mix(data))


def join(model: PeftModel, names: list[str]) -> None:
    """Add the adapter `joined`: what `names` do together, exactly."""
    model.add_weighted_adapter(names, [1.0] * len(names), JOINED, combination_type="cat")
