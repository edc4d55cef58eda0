"""README.md files for the hub: licence, base, figures and their limits, and how to load what lies beside them."""

from __future__ import annotations

from pathlib import Path

import yaml

from lite.files import read_json
from lite.models.loading import model_path
from lite.runs import STAGE1, STAGE2, TINY_NOTE, read_card, read_settings
from lite.stages.prompts import STAGE1_INSTRUCTION, STAGE2_INSTRUCTION

MERGED = "The adapters are merged into the base's 16-bit weights."
CONCATENATED = "One LoRA adapter: the stages' own, concatenated, which changes nothing in what they compute together."
SETTINGS = ("learning_rate", "max_steps", "num_generations", "beta", "lora_r", "lora_alpha", "seed", "temperature")
LIMITS = (
    "The figures hold for the questions that they were measured on and no others; where this data was also trained on, "
    "its test questions are of the same kind as the training questions.",
    "An answer can be wrong although it cites a document, and cite a document that does not support it. Read the "
    "source.",
    "It is asked in one form only: the prompts of lite. Asked otherwise, its scores and answers were not measured.",
    "It was not tested for safety, nor against documents that were written to mislead it.",
)


def model_card(run: Path, card: dict, merged: bool, repo: str = "") -> str:
    """The card of both stages as one.

    Args:
        run: A run folder, for its settings and its report, if it has them.
        card: Of the joined adapter, see `export`.
        merged: Whether it is a whole model.
        repo: Its id on the hub, where the single stages lie beside it; empty: not known.
    """
    base = card["base"]
    metadata = {
        "license": "apache-2.0",
        "library_name": "transformers" if merged else "peft",
        "pipeline_tag": "image-text-to-text",
        "tags": ["rag", "grpo", "lora", "explainable", "mmrag-lite"],
        **({} if Path(model_path(base)).exists() else {"base_model": base}),
    }
    settings = read_settings(run / "config.yaml") if (run / "config.yaml").exists() else {}
    lines = [
        "---", yaml.safe_dump(metadata, sort_keys=False).strip(), "---", "",
        f"# {base} for retrieval-augmented generation", "",
        f"Trained by lite (GRPO, {' + '.join(card['joined'])}). {MERGED if merged else CONCATENATED}", "",
        "| | |", "|---|---|", f"| base | `{base}` (fingerprint `{card['base_fingerprint']}`) |",
        f"| adapter hash | `{read_card(run / 'adapter')['hash']}` |",
        *([f"| stage 1 hash | `{card['stage1_hash']}` |"] if card.get("stage1_hash") else []),
        f"| data | {card['data']} |", *(f"| {key} | {settings[key]} |" for key in SETTINGS if key in settings), "",
        *_figures(run), "",
        "## Limits", "", *(f"- {limit}" for limit in ((TINY_NOTE,) * (base == "tiny") + LIMITS)), "",
        *(_usage(base, repo, card) if repo and not merged else []),
        "## Prompts", "", "```", *(STAGE2_INSTRUCTION if STAGE2 in card["joined"] else STAGE1_INSTRUCTION).split("\n"),
        "Question: …", "```", "",
        "Then the documents. The exact form is in the package's `lite/stages/prompts.py`.", "",
        "## Licence", "",
        "Apache-2.0 for the adapter; the base model's and the data's own licences apply to them.", "",
    ]  # fmt: skip
    return "\n".join(lines)


def stage_card(stage: str, repo: str) -> str:
    """The card of one stage's own adapter, which lies below that of both."""
    if stage == STAGE1:
        what = "The filter: asked about one document, it says Yes or No; P(Yes) is the document's relevance."
    else:
        what = (
            "**Not for use alone.** It ranks and answers only when stage 1's adapter (`../stage1`) is active, too: it "
            "was trained on top of it. Loaded alone into the base, it gives other answers than those that were "
            f"measured. Use lite (`--adapters {repo}`), which loads both, or the joined adapter one folder up."
        )
    return "\n".join(["---", "license: apache-2.0", "library_name: peft", "---", "", f"# {stage}", "", what, ""])


def _figures(run: Path) -> list[str]:
    report = read_json(run / "report.json") if (run / "report.json").exists() else {}
    systems = report.get("systems", {})
    figures = systems.get(report.get("full"), report.get("trained", {}))
    before = systems.get("base", report.get("base", {}))
    if not figures:
        return ["## Figures", "", "This run has no report: nothing was measured."]
    rows = [
        f"| {name} | {before[name]['value']:.3f} | {found['value']:.3f} | {found['low']:.3f} to {found['high']:.3f} |"
        if name in before
        else f"| {name} | – | {found['value']:.3f} | {found['low']:.3f} to {found['high']:.3f} |"
        for name, found in figures.items()
    ]
    heading = f"## Figures on {report.get('reported_on', 'unseen questions')}"
    return [heading, "", "| figure | base | trained | 95 % interval |", "|---|---|---|---|", *rows]


def _usage(base: str, repo: str, card: dict) -> list[str]:
    """How to load it, as far as that is possible with this base."""
    asking = [
        "## Use", "", "With lite, which filters with stage 1 and answers with both:", "",
        "```bash", "pip install mmrag-lite", "lite index ~/papers", f'lite ask "…" --adapters {repo}', "```", "",
    ]  # fmt: skip
    if STAGE2 not in card["joined"]:
        asking = ["## Use", "", "Stage 1 alone: P(relevant) of a document is the softmax over `Yes` and `No`.", ""]
    if base == "tiny":
        return [*asking, "The base comes with the package, so plain PEFT and vLLM cannot load it by its name.", ""]
    return [
        *asking,
        "With plain PEFT:", "", "```python",
        "from peft import PeftModel",
        "from transformers import AutoModelForImageTextToText, AutoProcessor", "",
        f'model = AutoModelForImageTextToText.from_pretrained("{base}")',
        f'model = PeftModel.from_pretrained(model, "{repo}")',
        f'processor = AutoProcessor.from_pretrained("{base}")', "```", "",
        "With vLLM (not tried; the language model's layers alone are adapted):", "", "```bash",
        f"vllm serve {base} --enable-lora --max-lora-rank {_rank(card['rank'])} --lora-modules lite={repo}", "```", "",
    ]  # fmt: skip


def _rank(rank: int) -> int:
    """The smallest rank that vLLM knows and that is enough."""
    return next((known for known in (8, 16, 32, 64, 128, 256, 320) if known >= rank), 512)
