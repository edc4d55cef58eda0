"""`--dry_run true`: what a run would do and need, without training anything."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence

import numpy as np
from rich.console import Console
from rich.table import Table
from transformers import AutoConfig, AutoProcessor
from trl import GRPOConfig

from lite.config.model import ModelConfig
from lite.config.parse import COMMON_FIELDS
from lite.config.runs import RunConfig, Stage1Config, Stage2Config
from lite.hub import give_up_early
from lite.models.families import family_of
from lite.models.inputs import without_thinking
from lite.models.loading import model_path
from lite.models.memory import (
    GENERATING,
    REMEDIES,
    TRAINING,
    USABLE,
    card_gib,
    run_estimate,
)
from lite.models.shapes import Shape, shape_of
from lite.schema import Document
from lite.train.auto_fit import auto_fit
from lite.train.rows import load_pairs, pair_prompts, prompt_lengths
from lite.train.stage2_rows import unscored_rows

logger = logging.getLogger(__name__)

CHARS_PER_TOKEN, PIXELS_PER_TOKEN = 4, 32 * 32  # where nothing is known; the second is Qwen3-VL's
DEFAULT_CARD_GIB = 24
# The components of the estimate that settings decide, by what they are needed for
PHASES = {
    "generation: KV cache": GENERATING,
    "generation: prefill": GENERATING,
    "training: activations": TRAINING,
    "training: one layer": TRAINING,
    "training: logits": TRAINING,
}


def dry_run_stage1(config: Stage1Config, model_config: ModelConfig, console: Console) -> None:
    """Print the settings, the data, the prompts' lengths and the memory estimate of a stage 1 run."""
    config, model_config, _ = auto_fit(config, model_config, 1, console, DEFAULT_CARD_GIB)
    pairs = load_pairs(config)
    what = f"{len(pairs)} pairs of a question and a document, half of them relevant"
    dry_run(config, model_config, console, what, *pair_prompts(pairs, config.document_chars), at_once=True)


def dry_run_stage2(config: Stage2Config, model_config: ModelConfig, console: Console) -> None:
    """The same of a stage 2 run. Without stage 1's scores the prompts hold other distractors, but are as long."""
    config, model_config, _ = auto_fit(config, model_config, 2, console, DEFAULT_CARD_GIB)
    listings = [row.listing for row in unscored_rows(config)]
    prompts = [listing.prompt(config.document_chars) for listing in listings]
    what = f"{len(listings)} prompts of a question with up to {config.max_documents} documents"
    dry_run(config, model_config, console, what, prompts, [listing.documents for listing in listings], adapters=2)


def dry_run(
    config: RunConfig,
    model_config: ModelConfig,
    console: Console,
    what: str,
    prompts: Sequence[list[dict]],
    documents: Sequence[Sequence[Document]],
    adapters: int = 1,
    at_once: bool = False,
) -> None:
    """Print everything about a run on `prompts`, which show `documents`; `at_once`: answered without thinking."""
    console.print(settings_table(config, model_config))
    shape = shape_of(model_path(model_config.model_name_or_path))
    lengths = lengths_or_guess(prompts, documents, model_config, shape, console, at_once)
    kept = [length for length in lengths if length <= config.max_prompt_tokens]
    images = [sum(document.image is not None for document in shown) for shown in documents]
    prompts_per_step = config.generation_batch_size // config.num_generations
    p50, p95, longest = np.percentile(kept or lengths, [50, 95, 100]).astype(int)
    console.print(
        f"Data            {config.data}: {what}; {len(lengths) - len(kept)} left out as too long\n"
        f"Prompt tokens   p50 {p50}, p95 {p95}, max {longest}; "
        f"images per prompt {min(images)}–{max(images)}, mean {np.mean(images):.2f}\n"
        f"A step          {prompts_per_step} prompts × {config.num_generations} generations of at most "
        f"{config.max_completion_length} tokens\n"
        f"Time per step   not known before the first step; `benchmarks/` holds what was measured",
        soft_wrap=True,
        highlight=False,
    )
    if shape is None:
        console.print(
            f"Memory          no estimate: lite cannot read the configuration of {model_config.model_name_or_path}, or "
            "does not know its family (docs/training.md lists them)",
            soft_wrap=True,
        )
        return
    memory = run_estimate(shape, config, model_config, int(longest), max(images), adapters)
    console.print(memory_table(memory))
    console.print(verdict(memory, card_gib()), soft_wrap=True, highlight=False)


def lengths_or_guess(
    prompts: Sequence[list[dict]],
    documents: Sequence[Sequence[Document]],
    model_config: ModelConfig,
    shape: Shape | None,
    console: Console,
    at_once: bool = False,
) -> list[int]:
    """Exact prompt lengths if the processor loads, else guesses: 4 characters a token, images at `max_pixels`."""
    path = model_path(model_config.model_name_or_path)
    give_up_early(path)
    try:
        with console.status(f"fetching the processor of {model_config.model_name_or_path}"):
            processor = AutoProcessor.from_pretrained(path)
            limit = family_of(AutoConfig.from_pretrained(path)).limit_pixels
    except (OSError, ValueError):
        console.print("The processor cannot be fetched: lengths are guessed at 4 characters a token.", style="yellow")
        image_tokens = (model_config.max_pixels or 512 * 512) // (shape.token_pixels if shape else PIXELS_PER_TOKEN)
        return [_guess(prompt, image_tokens) for prompt in prompts]
    if limit is not None and model_config.max_pixels is not None:
        limit(processor, model_config.max_pixels)
    return prompt_lengths(prompts, documents, processor, **(without_thinking(processor) if at_once else {}))


def _guess(prompt: list[dict], image_tokens: int) -> int:
    parts = prompt[0]["content"]
    characters = sum(len(part.get("text", "")) for part in parts)
    return characters // CHARS_PER_TOKEN + image_tokens * sum(part["type"] == "image" for part in parts)


def settings_table(config: RunConfig, model_config: ModelConfig) -> Table:
    """Our fields, and those of TRL that recipes set."""
    table = Table(title="Settings", show_header=False)
    of_trl = {field.name for field in dataclasses.fields(GRPOConfig)} - set(COMMON_FIELDS)
    for source in (model_config, config):
        for field in dataclasses.fields(source):
            if field.name not in of_trl:
                table.add_row(field.name, str(getattr(source, field.name)))
    return table


def memory_table(memory: dict[str, float]) -> Table:
    """The estimate by component."""
    table = Table(title="Estimated GPU memory, GiB (longest prompts, worst batch)", show_header=False)
    for name, value in memory.items():
        table.add_row(name, f"{value:.2f}", style="bold" if name == "peak" else None)
    return table


def verdict(memory: dict[str, float], card: float | None) -> str:
    """Whether it fits, and what to lower if not."""
    size = card or DEFAULT_CARD_GIB
    where = f"this GPU of {size:.0f} GiB" if card else f"a {size} GiB card (no GPU here)"
    if memory["peak"] <= USABLE * size:
        return f"Fits {where}: {size - memory['peak']:.1f} GiB to spare."
    component = max(PHASES, key=memory.__getitem__)
    return (
        f"Does not fit {where} with room to spare. Largest: {component}. Lower {REMEDIES[PHASES[component]]}; "
        "--auto_fit true does it by the estimate."
    )
