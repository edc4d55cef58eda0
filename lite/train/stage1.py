"""Stage 1: the relevance filter. A question and a document, one word, rewarded by a rule; then a report."""

from __future__ import annotations

from pathlib import Path

from peft import PeftModel, get_peft_model
from rich.console import Console
from transformers import ProcessorMixin, set_seed

from lite.config.launch import is_main
from lite.config.model import ModelConfig
from lite.config.runs import Stage1Config, with_values
from lite.evaluate.stage1 import stage1_report
from lite.models.adapters import base_fingerprint, save_adapter
from lite.models.inputs import vision_tokens, without_thinking
from lite.models.layers import base_of
from lite.models.loading import load_model, lora_config
from lite.runs import STAGE1, read_metrics, write_card
from lite.train import rewards
from lite.train.auto_fit import auto_fit, check_size
from lite.train.callbacks import MetricsFile, ProgressLine
from lite.train.health import highest_reward, summary
from lite.train.loop import train
from lite.train.rows import (
    check_images,
    drop_long,
    load_pairs,
    load_report_questions,
    pair_prompts,
    prompt_dataset,
    prompt_lengths,
)
from lite.train.run_folder import alone, claim_together, resolved_settings
from lite.train.trainer import StageTrainer

REWARDS = [rewards.label, rewards.format]


@alone
def train_stage1(config: Stage1Config, model_config: ModelConfig, console: Console) -> Path:
    """Train the relevance filter and report on it. Returns the run folder.

    Raises:
        LiteError: Something in the settings, the data or the run folder needs the user.
    """
    folder = Path(config.output_dir)
    config, model_config, fitted = auto_fit(config, model_config, 1, console)
    check_size(config, model_config, 1)
    pairs = load_pairs(config)
    check_images((pair.document for pair in pairs), console)
    set_seed(config.seed)
    base, processor = load_model(model_config, config.use_cpu)
    settings = resolved_settings(config, model_config) | {"base_fingerprint": base_fingerprint(base)}
    settings["auto_fitted"] = fitted
    claim_together(folder, settings, config.overwrite)
    template = without_thinking(processor)
    lengths = prompt_lengths(*pair_prompts(pairs, config.document_chars), processor, **template)
    pairs = drop_long(pairs, lengths, config.max_prompt_tokens)
    model = get_peft_model(base, lora_config(model_config, base), adapter_name=STAGE1)
    highest = highest_reward(config.reward_weights, REWARDS)
    suppressed = {"suppress_tokens": vision_tokens(base, processor)} | (config.generation_kwargs or {})
    train(
        StageTrainer(
            model=model,
            reward_funcs=[rewards.with_credit(reward, config.first_word_credit) for reward in REWARDS],
            args=with_values(
                config, generation_kwargs=suppressed, chat_template_kwargs=template or config.chat_template_kwargs
            ),
            train_dataset=prompt_dataset(pairs, config.document_chars),
            processing_class=processor,
            callbacks=[MetricsFile(folder / "metrics.jsonl"), ProgressLine(console, highest=highest)],
        ),
        console,
    )
    if is_main():
        save_and_report(model, processor, config, model_config, settings["base_fingerprint"], console)
    return folder


def save_and_report(
    model: PeftModel,
    processor: ProcessorMixin,
    config: Stage1Config,
    model_config: ModelConfig,
    fingerprint: str,
    console: Console,
) -> None:
    """Write the adapter, tune its threshold, report, and put the threshold on its card."""
    folder = Path(config.output_dir)
    card = {
        "stage": STAGE1,
        "base": model_config.model_name_or_path,
        "base_fingerprint": fingerprint,
        "model_type": base_of(model).config.model_type,
        "document_chars": config.document_chars,
        "max_pixels": model_config.max_pixels,
        "data": config.data,
        "seed": config.seed,
    } | ({"chat_template_kwargs": template} if (template := without_thinking(processor)) else {})
    adapter = folder / "adapter"
    save_adapter(model, STAGE1, adapter, card)
    health = summary(read_metrics(folder / "metrics.jsonl"), highest_reward(config.reward_weights, REWARDS))
    report = stage1_report(
        model, processor, *load_report_questions(config), folder,
        {"data": config.data, "seed": config.seed, "health": health},
        document_chars=config.document_chars, batch_size=config.per_device_eval_batch_size,
        min_recall=config.min_recall, hard_pool_size=config.hard_pool_size, console=console,
    )  # fmt: skip
    write_card(adapter, card | {"hash": report["adapter_hash"], **report["filter"]})
    console.print(f"Adapter: {adapter}\nReport:  {folder / 'report.md'}", soft_wrap=True)
