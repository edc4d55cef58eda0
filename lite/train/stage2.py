"""Stage 2: rank and answer with a reasoning chain. A cold start where wanted, then GRPO, stacked on stage 1."""

from __future__ import annotations

import copy
import logging
from pathlib import Path

import numpy as np
from peft import PeftModel
from rich.console import Console
from transformers import PreTrainedModel, ProcessorMixin, set_seed

from lite.config.launch import is_main
from lite.config.model import ModelConfig
from lite.config.runs import Stage2Config, with_values
from lite.evaluate.answers import Budget
from lite.evaluate.stage2 import stage2_report
from lite.models.adapters import activate, add_adapter, base_fingerprint, copy_weights, load_adapter, save_adapter
from lite.models.inputs import vision_tokens
from lite.models.loading import load_model, lora_config
from lite.runs import STAGE1, STAGE2, read_card, read_metrics, stage1_beside, tuned_card, write_card
from lite.schema import LiteError
from lite.train import rewards
from lite.train.auto_fit import auto_fit, check_size
from lite.train.callbacks import MetricsFile, ProgressLine
from lite.train.cold_start import cold_start
from lite.train.health import highest_reward, summary
from lite.train.loop import train
from lite.train.rows import check_images, drop_long, load_report_questions, prompt_lengths
from lite.train.run_folder import alone, claim_together, resolved_settings
from lite.train.stage2_rows import Row, prompt_dataset, training_rows
from lite.train.trainer import StageTrainer

logger = logging.getLogger(__name__)

INITIAL = "initial"  # a frozen copy of stage 2's adapter as GRPO finds it, for the KL reference
REWARDS = [rewards.stage2_format, rewards.ranking, rewards.answer, rewards.grounding]


@alone
def train_stage2(config: Stage2Config, model_config: ModelConfig, console: Console) -> Path:
    """Train stage 2 on the stage 1 adapter of the same profile. Returns the run folder.

    Raises:
        LiteError: Something in the settings, the data or the run folder needs the user.
    """
    folder = Path(config.output_dir)
    set_seed(config.seed)
    config, model_config, fitted = auto_fit(config, model_config, 2, console)
    check_size(config, model_config, 2)
    base, processor = load_model(model_config, config.use_cpu)
    settings = resolved_settings(config, model_config) | {"base_fingerprint": base_fingerprint(base)}
    settings["auto_fitted"] = fitted
    stage1 = stage1_folder(config)
    if stage1 is not None:
        settings["stage1_hash"] = read_card(stage1)["hash"]
    claim_together(folder, settings, config.overwrite)
    model = stacked_model(base, model_config, stage1, config.adapter_mode)
    rows = load_rows(model, processor, config, stage1, console)
    card = {
        "stage": STAGE2,
        "base": model_config.model_name_or_path,
        "base_fingerprint": settings["base_fingerprint"],
        "model_type": base.config.model_type,
        "adapter_mode": config.adapter_mode,
        "stage1_hash": settings.get("stage1_hash"),
        "active": acting(config.adapter_mode),
        "document_chars": config.document_chars,
        "max_documents": config.max_documents,
        "max_completion_length": config.max_completion_length,
        "max_pixels": model_config.max_pixels,
        "quotes": config.quotes,
        "data": config.data,
        "seed": config.seed,
        "cold_start_steps": config.cold_start_steps,
    }
    if config.cold_start_steps:
        cold_start(model, processor, rows, config, card, console)
    highest = highest_reward(config.reward_weights, REWARDS)
    suppressed = {"suppress_tokens": vision_tokens(base, processor)} | (config.generation_kwargs or {})
    train(
        StageTrainer(
            model=model,
            reward_funcs=REWARDS,
            args=with_values(config, generation_kwargs=suppressed),
            train_dataset=prompt_dataset(rows, config),
            processing_class=processor,
            callbacks=[MetricsFile(folder / "metrics.jsonl"), ProgressLine(console, highest=highest)],
            reference=reference(model, config),
        ),
        console,
    )
    if is_main():
        save_and_report(model, processor, config, stage1, card, console)
    return folder


def load_rows(
    model: PeftModel, processor: ProcessorMixin, config: Stage2Config, stage1: Path | None, console: Console
) -> list[Row]:
    """The training rows, with images that open and prompts that are short enough."""
    rows = training_rows(model, processor, config, stage1, console)
    check_images((document for row in rows for document in row.listing.documents), console)
    prompts = [row.listing.prompt(config.document_chars) for row in rows]
    lengths = prompt_lengths(prompts, [row.listing.documents for row in rows], processor)
    return drop_long(rows, lengths, config.max_prompt_tokens)


def save_and_report(
    model: PeftModel, processor: ProcessorMixin, config: Stage2Config, stage1: Path | None, card: dict, console: Console
) -> None:
    """Write the adapter, report on it, and put the main figures on its card."""
    folder = Path(config.output_dir)
    save_adapter(model, STAGE2, folder / "adapter", card)
    _, test, corpus = load_report_questions(config)
    budget = Budget(
        -np.inf, config.max_documents, config.max_documents, config.document_chars, config.max_completion_length,
        config.per_device_eval_batch_size, config.quotes,
    )  # fmt: skip
    health = summary(read_metrics(folder / "metrics.jsonl"), highest_reward(config.reward_weights, REWARDS))
    report = stage2_report(
        model, processor, test, corpus, folder,
        {"data": config.data, "seed": config.seed, "adapter_mode": config.adapter_mode, "health": health},
        stage1=stage1, trained=acting(config.adapter_mode), budget=budget, orders=config.report_orders, console=console,
    )  # fmt: skip
    headline = {name: round(figure["value"], 4) for name, figure in report["systems"][report["full"]].items()}
    write_card(folder / "adapter", card | {"hash": report["adapter_hash"], "metrics": headline})
    console.print(f"Adapter: {folder / 'adapter'}\nReport:  {folder / 'report.md'}", soft_wrap=True)


def stage1_folder(config: Stage2Config) -> Path | None:
    """The stage 1 adapter that the run names, or the one beside it; None for `adapter_mode: fresh`."""
    if config.adapter_mode == "fresh":
        return None
    folder = Path(config.stage1_adapter or stage1_beside(Path(config.output_dir) / "adapter"))
    if not folder.exists():
        raise LiteError(
            f"Stage 2 is stacked on a stage 1 adapter, and {folder} does not exist. Train stage 1 first "
            "(recipes/stage1.sh), or name another one with --stage1_adapter."
        )
    card = tuned_card(folder)
    if card["data"] != config.data:
        logger.warning(
            "Stage 1 in %s was trained and tuned on %s, stage 2 trains on %s.", folder, card["data"], config.data
        )
    return folder


def acting(adapter_mode: str) -> list[str]:
    """The adapters that are active together when stage 2 answers."""
    return [STAGE1, STAGE2] if adapter_mode == "stack" else [STAGE2]


def stacked_model(
    base: PreTrainedModel, model_config: ModelConfig, stage1: Path | None, adapter_mode: str
) -> PeftModel:
    """The base with stage 1's adapter (frozen) and a new one for stage 2 (learning), active as `adapter_mode` says."""
    model = base if stage1 is None else load_adapter(base, stage1, STAGE1)
    if adapter_mode == "continue":
        model = add_adapter(model, copy.deepcopy(model.peft_config[STAGE1]), STAGE2)
        copy_weights(model, STAGE1, STAGE2)
    else:
        model = add_adapter(model, lora_config(model_config, base), STAGE2)
    activate(model, acting(adapter_mode), trainable=STAGE2)
    return model


def reference(model: PeftModel, config: Stage2Config) -> list[str]:
    """The adapters of the KL reference: the policy as GRPO finds it.

    That is base + stage 1, unless stage 2's adapter already does something: after a cold start, or as a copy of
    stage 1's. Then a frozen copy of it stands in.
    """
    if config.beta == 0 or not (config.cold_start_steps or config.adapter_mode == "continue"):
        return [STAGE1] if config.adapter_mode == "stack" else []
    add_adapter(model, copy.deepcopy(model.peft_config[STAGE2]), INITIAL)
    copy_weights(model, STAGE2, INITIAL)
    activate(model, acting(config.adapter_mode), trainable=STAGE2)
    return [INITIAL if name == STAGE2 else name for name in acting(config.adapter_mode)]
