"""A trained run as files that others can load without this package: one ordinary PEFT adapter, or a merged model."""

from __future__ import annotations

import re
from pathlib import Path

import torch
import yaml
from peft import PeftModel

from lite.config.model import ModelConfig
from lite.data.sources import split_mix
from lite.files import read_json, write_text
from lite.models.adapters import activate, load_stack, save_adapter
from lite.models.loading import load_model, model_path
from lite.runs import STAGE1, STAGE2, read_card, read_settings, stage1_of
from lite.schema import LiteError

JOINED = "joined"
MERGED = "The adapters are merged into the base's 16-bit weights."
CONCATENATED = "One LoRA adapter: the stages' own, concatenated, which changes nothing in what they compute together."


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
    adapter = run / "adapter"
    card = read_card(adapter)
    stage2 = adapter if card["stage"] == STAGE2 else None
    stage1 = adapter if stage2 is None else stage1_of(adapter) if STAGE1 in card["active"] else None
    names = [STAGE1] * (stage1 is not None) + [STAGE2] * (stage2 is not None)
    # a pre-quantised base has its 16-bit twin under the same name without the ending
    name = re.sub(r"-(unsloth-)?bnb-4bit$", "", card["base"]) if merge else card["base"]
    config = ModelConfig(
        model_name_or_path=name, max_pixels=card["max_pixels"], backend="transformers", load_in_4bit=not merge
    )
    base, processor = load_model(config)
    model = load_stack(base, stage1, stage2)
    card = {key: value for key, value in card.items() if key != "active"} | {"joined": names, "base": name}
    card["data"] = ",".join(part.partition(":")[0] for part in split_mix(card["data"]))  # without the user's paths
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


def join(model: PeftModel, names: list[str]) -> None:
    """Add the adapter `joined`: what `names` do together, exactly."""
    model.add_weighted_adapter(names, [1.0] * len(names), JOINED, combination_type="cat")


def model_card(run: Path, card: dict, merged: bool) -> str:
    """A README.md that the hub accepts: licence, base, what was trained how, figures."""
    is_hub_id = not Path(model_path(card["base"])).exists()
    metadata = {
        "license": "apache-2.0",
        "library_name": "transformers" if merged else "peft",
        "pipeline_tag": "image-text-to-text",
        "tags": ["rag", "grpo", "lora", "explainable"],
        **({"base_model": card["base"]} if is_hub_id else {}),
    }
    settings = read_settings(run / "config.yaml")
    report = read_json(run / "report.json") if (run / "report.json").exists() else {}
    figures = report.get("systems", {}).get(report.get("full"), report.get("trained", {}))
    shown = ("learning_rate", "max_steps", "num_generations", "beta", "lora_r", "lora_alpha", "seed", "temperature")
    lines = [
        "---", yaml.safe_dump(metadata, sort_keys=False).strip(), "---", "",
        f"# {card['base']} for retrieval-augmented generation", "",
        f"Trained by lite (GRPO, {' + '.join(card['joined'])}). {MERGED if merged else CONCATENATED}", "",
        "Prompts, output grammar and how to use it: the package's `lite/stages/prompts.py`.", "",
        "| | |", "|---|---|", f"| base | `{card['base']}` (fingerprint `{card['base_fingerprint']}`) |",
        f"| adapter hash | `{read_card(run / 'adapter')['hash']}` |",
        *([f"| stage 1 hash | `{card['stage1_hash']}` |"] if card.get("stage1_hash") else []),
        f"| data | {card['data']} |", *(f"| {key} | {settings[key]} |" for key in shown if key in settings), "",
        f"## Figures on {report.get('reported_on', 'unseen questions')}", "",
        "| figure | value | 95 % interval |", "|---|---|---|",
        *(f"| {n} | {f['value']:.3f} | {f['low']:.3f} to {f['high']:.3f} |" for n, f in figures.items()), "",
        "## Licence", "",
        "Apache-2.0 for the adapter; the base model's and the data's own licences apply to them.", "",
    ]  # fmt: skip
    return "\n".join(lines)
