"""Stage 2: rank and answer with a reasoning chain. A cold start where wanted, then GRPO, stacked on stage 1."""

from __future__ import annotations

import copy
import json
import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
from peft import PeftModel
from rich.console import Console
from transformers import ProcessorMixin, set_seed
from trl import SFTConfig, SFTTrainer

from lite.config.launch import for_processes, is_main, processes
from lite.config.model import ModelConfig
from lite.data.pools import Corpus
from lite.data.problems import Problems
from lite.data.sources import load_report_examples
from lite.evaluate.stage1 import reported_on
from lite.evaluate.stage2 import (
    Budget,
    answer_examples,
    evidence_sentence,
    evidence_test,
    lexical_scores,
    markdown,
    plot_terms,
    predictions_path,
    progress_bar,
    report_systems,
    stage1_scores,
    terminal_table,
)
from lite.files import write_text
from lite.models.adapters import (
    activate,
    active,
    add_adapter,
    base_fingerprint,
    copy_weights,
    load_adapter,
    load_weights,
    save_adapter,
)
from lite.models.loading import load_model, lora_config, model_path, vision_tokens
from lite.runs import STAGE1, STAGE2, read_card, stage1_beside, tuned_card, write_card
from lite.schema import Example, LiteError, Trace, digest
from lite.stages.answer import BASE, COLD_START, FULL, STAGE1_BASE, Listing, complete, say
from lite.stages.prompts import caption_prompt, stage2_prompt
from lite.train.auto_fit import auto_fit
from lite.train.callbacks import MetricsFile, ProgressLine, train_to_the_end
from lite.train.stage1 import (
    RunConfig,
    alone,
    check_images,
    claim_together,
    drop_long,
    prompt_lengths,
    resolved_settings,
    rewards,
    train,
)
from lite.train.stage2_rows import Row, prompt_dataset, training_rows
from lite.train.trainer import StageTrainer, adjust, learning, release

logger = logging.getLogger(__name__)

CAPTION_TOKENS = 60  # of a reply to `cold_start_caption`, at most
INITIAL = "initial"  # a frozen copy of stage 2's adapter as GRPO finds it, for the KL reference
REWARDS = [rewards.stage2_format, rewards.ranking, rewards.answer, rewards.grounding]


@dataclass
class Stage2Config(RunConfig):
    """The settings of a stage 2 run."""

    stage1_adapter: str | None = field(
        default=None, metadata={"help": "Folder of stage 1's adapter. By default ../stage1/adapter, from output_dir."}
    )
    adapter_mode: str = field(
        default="stack",
        metadata={
            "help": "`stack`: a new adapter on top of stage 1's, which stays as it is. `continue`: a copy of stage 1's "
            "is trained on. `fresh`: a new adapter on the bare base, documents in BM25's order (no stage 1 at all).",
            "choices": ["stack", "continue", "fresh"],
        },
    )
    multi_objective_aggregation: str = field(
        default="normalize_then_sum",
        metadata={
            "help": "`normalize_then_sum` (GDPO): each reward is normalised within its group, so that it counts by its "
            "weight and not by its spread. `sum_then_normalize`: TRL's default, scaled as scale_rewards says.",
            "choices": ["normalize_then_sum", "sum_then_normalize"],
        },
    )
    max_documents: int = field(default=6, metadata={"help": "Documents in a prompt, at most."})
    prompts_per_question: int = field(
        default=1, metadata={"help": "Prompts drawn for a training question, each with other documents and order."}
    )
    unanswerable_share: float = field(
        default=0.05, metadata={"help": "Share of the prompts that hold no relevant document."}
    )
    as_filtered_share: float = field(
        default=0.0,
        metadata={
            "help": "Share of the prompts that hold what stage 1 lets through and nothing else, as in use: a relevant "
            "document may be missing. The others hold all relevant documents."
        },
    )
    report_orders: int = field(
        default=1,
        metadata={
            "help": "Orders of the documents in which the report asks each question; its figures are means over them. "
            "More: narrower intervals where answers hang on the order, as a small model's do, and a longer report."
        },
    )
    cold_start_steps: int = field(
        default=0,
        metadata={"help": "Supervised steps on chains composed from the labels, before GRPO. Instruct models need 0."},
    )
    cold_start_batch_size: int = field(default=16, metadata={"help": "Rows per step of the cold start."})
    cold_start_learning_rate: float = field(default=1e-4, metadata={"help": "Learning rate of the cold start."})
    cold_start_caption: str | None = field(
        default=None,
        metadata={
            "help": "What the base model is asked of every relevant image, such as `Describe the image in a sentence.` "
            "The chains of the cold start say the reply before they answer. Unset: they say the answer alone."
        },
    )

    def __post_init__(self):
        super().__post_init__()
        if self.multi_objective_aggregation == "normalize_then_sum" and self.scale_rewards != "group":
            raise ValueError(
                f"scale_rewards is {self.scale_rewards}, which normalize_then_sum does not look at. Set "
                "multi_objective_aggregation: sum_then_normalize with it."
            )
        if self.max_documents < 1:
            raise ValueError(f"max_documents is {self.max_documents}; a prompt needs at least one document.")
        if self.report_orders < 1:
            raise ValueError(f"report_orders is {self.report_orders}; a report needs at least one.")
        if not 0 <= self.unanswerable_share < 1:
            raise ValueError(f"unanswerable_share is a share, from 0 to below 1, not {self.unanswerable_share}.")
        if not 0 <= self.as_filtered_share <= 1:
            raise ValueError(f"as_filtered_share is a share, from 0 to 1, not {self.as_filtered_share}.")


@alone
def train_stage2(config: Stage2Config, model_config: ModelConfig, console: Console) -> Path:
    """Train stage 2 on the stage 1 adapter of the same profile. Returns the run folder.

    Raises:
        LiteError: Something in the settings, the data or the run folder needs the user.
    """
    folder = Path(config.output_dir)
    set_seed(config.seed)
    fitted = auto_fit(config, model_config, 2, console)
    base, processor = load_model(model_config, config.use_cpu)
    settings = resolved_settings(config, model_config) | {"base_fingerprint": base_fingerprint(base)}
    settings["auto_fitted"] = fitted
    stage1 = stage1_folder(config)
    if stage1 is not None:
        settings["stage1_hash"] = read_card(stage1)["hash"]
    claim_together(folder, settings, config.overwrite)
    model = stacked_model(base, model_config, stage1, config.adapter_mode)
    rows = training_rows(model, processor, config, stage1, console)
    check_images((document for row in rows for document in row.listing.documents), console)
    prompts = [stage2_prompt(row.listing.question, row.listing.documents, config.document_chars) for row in rows]
    lengths = prompt_lengths(prompts, [row.listing.documents for row in rows], processor)
    rows = drop_long(rows, lengths, config.max_prompt_tokens)

    card = {
        "stage": STAGE2,
        "base": model_config.model_name_or_path,
        "base_fingerprint": settings["base_fingerprint"],
        "adapter_mode": config.adapter_mode,
        "stage1_hash": settings.get("stage1_hash"),
        "active": acting(config.adapter_mode),
        "document_chars": config.document_chars,
        "max_documents": config.max_documents,
        "max_completion_length": config.max_completion_length,
        "max_pixels": model_config.max_pixels,
        "data": config.data,
        "seed": config.seed,
        "cold_start_steps": config.cold_start_steps,
    }
    if config.cold_start_steps:
        cold_start(model, processor, rows, config, card, console)
    config.generation_kwargs = {"suppress_tokens": vision_tokens(base)} | (config.generation_kwargs or {})
    train(
        StageTrainer(
            model=model,
            reward_funcs=REWARDS,
            args=config,
            train_dataset=prompt_dataset(rows, config),
            processing_class=processor,
            callbacks=[MetricsFile(folder / "metrics.jsonl"), ProgressLine(console)],
            reference=reference(model, config),
        ),
        console,
    )
    if not is_main():
        return folder
    save_adapter(model, STAGE2, folder / "adapter", card)
    report = stage2_report(model, processor, config, stage1, console)
    write_card(folder / "adapter", card | {"hash": report["adapter_hash"], "metrics": headline(report)})
    console.print(f"Adapter: {folder / 'adapter'}\nReport:  {folder / 'report.md'}", soft_wrap=True)
    return folder


def stage1_folder(config: Stage2Config) -> Path | None:
    """The adapter of stage 1 that a run names, or the one beside it; None where there shall be none."""
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
    """The adapters that act together when stage 2 answers."""
    return [STAGE1, STAGE2] if adapter_mode == "stack" else [STAGE2]


def stacked_model(base, model_config: ModelConfig, stage1: Path | None, adapter_mode: str) -> PeftModel:
    """The base with stage 1's adapter (frozen) and a new one for stage 2 (learning), acting as `adapter_mode` says."""
    model = base if stage1 is None else load_adapter(base, stage1, STAGE1)
    if adapter_mode == "continue":
        model = add_adapter(model, copy.deepcopy(model.peft_config[STAGE1]), STAGE2)
        copy_weights(model, STAGE1, STAGE2)
    else:
        model = add_adapter(model, lora_config(model_config), STAGE2)
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


# ---------------------------------------------------------------------------------------------------------- cold start


def cold_start(
    model: PeftModel, processor: ProcessorMixin, rows: Sequence[Row], config: Stage2Config, card: dict, console: Console
) -> None:
    """Teach stage 2's adapter the grammar by imitation of composed chains, once per run folder.

    GRPO sharpens what a model sometimes does; a small model never opens the right tags by chance. The adapter after the
    cold start is kept in `cold_start/`, so that its share in the result can be told from GRPO's.
    """
    folder = Path(config.output_dir) / "cold_start"
    if (folder / "lite.json").exists():
        load_weights(model, folder, STAGE2)
        return
    console.print(f"Cold start: {config.cold_start_steps} supervised steps on composed chains.", highlight=False)
    captions = caption(model, processor, rows, config, console) if config.cold_start_caption else {}
    share = max(1, config.cold_start_batch_size // processes())
    settings = SFTConfig(
        output_dir=str(folder),
        max_steps=config.cold_start_steps,
        per_device_train_batch_size=min(share, config.per_device_train_batch_size),
        gradient_accumulation_steps=max(1, share // config.per_device_train_batch_size),
        learning_rate=config.cold_start_learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=min(10, config.cold_start_steps // 5),
        max_length=None,
        bf16=config.bf16,
        use_cpu=config.use_cpu,
        gradient_checkpointing=config.gradient_checkpointing,
        optim=config.optim,
        seed=config.seed,
        logging_steps=5,
        save_strategy="no",
        report_to="none",
        remove_unused_columns=False,
        dataloader_pin_memory=config.dataloader_pin_memory,
    )
    for_processes(settings)
    exact = learning(model)
    trainer = SFTTrainer(
        model=model,
        args=settings,
        train_dataset=prompt_dataset(rows, config, captions),
        processing_class=processor,
        callbacks=[MetricsFile(folder / "metrics.jsonl", "loss"), ProgressLine(console, "cold start", "loss")],
    )
    adjust(trainer, exact)
    train_to_the_end(trainer)
    release(trainer)
    if is_main():
        save_adapter(model, STAGE2, folder, card | {"stage": "cold start"})


def caption(
    model: PeftModel, processor: ProcessorMixin, rows: Sequence[Row], config: Stage2Config, console: Console
) -> dict[str, str]:
    """What the bare base sees on each relevant image that has no text of its own, by document id."""
    relevant = [d for row in rows for d in row.listing.documents if d.id in row.example.relevant]
    images = list({d.id: d for d in relevant if d.image is not None and not d.text}.values())
    prompts = [caption_prompt(config.cold_start_caption)] * len(images)
    with active(model, []), progress_bar(console) as bar:
        task = bar.add_task("captions", total=len(images))
        said = complete(
            model, processor, prompts, [[image] for image in images], CAPTION_TOKENS,
            config.per_device_eval_batch_size, lambda places, _: bar.advance(task, len(places)),
        )  # fmt: skip
    return {image.id: text.strip(" .\n") for image, text in zip(images, said, strict=True) if text.strip(" .\n")}


# -------------------------------------------------------------------------------------------------------------- report


def stage2_report(
    model: PeftModel, processor: ProcessorMixin, config: Stage2Config, stage1: Path | None, console: Console
) -> dict:
    """Answer the test split with and without what was trained; write `report.json`, `report.md`, plots, predictions.

    Answers of the same adapters to the same questions, as a stopped report leaves them, are not asked for again.

    Returns:
        The report, as in `report.json`.
    """
    folder = Path(config.output_dir)
    examples, corpus = load_test_examples(config)
    full = FULL if stage1 is not None else "stage 2 alone"
    lexical = lexical_scores(examples, corpus)
    open_budget = Budget(
        -np.inf, config.max_documents, config.max_documents, config.document_chars, config.max_completion_length,
        config.per_device_eval_batch_size,
    )  # fmt: skip
    scores, budget = lexical, open_budget
    if stage1 is not None:
        card = read_card(stage1)
        scores = stage1_scores(model, processor, examples, card, config.per_device_eval_batch_size, console)
        budget = replace(open_budget, threshold=card["threshold"], max_kept=card["max_kept"])

    answered_by = {
        "adapter_hash": read_card(folder / "adapter")["hash"],
        "stage1_hash": read_card(stage1)["hash"] if stage1 is not None else None,
    }
    filtered = {"threshold": float(budget.threshold), "max_kept": budget.max_kept}
    owner = json.dumps(answered_by | filtered | {"examples": digest(examples)}, indent=2) + "\n"
    whose = folder / "predictions" / "of.json"
    if not whose.exists() or whose.read_text() != owner:
        shutil.rmtree(whose.parent, ignore_errors=True)
        whose.parent.mkdir()
        write_text(whose, owner)

    def run(name: str, adapters: Sequence[str], scores: Sequence[np.ndarray], budget: Budget) -> list[list[Trace]]:
        ask = partial(say, model, processor)
        found = []
        for order in range(config.report_orders):
            path = predictions_path(folder, name, order)
            with active(model, adapters):
                found.append(answer_examples(ask, examples, scores, budget, path, console, name, order))
        return found

    trained = acting(config.adapter_mode)
    systems = {BASE: run(BASE, [], lexical, open_budget)}
    if stage1 is not None:
        systems[STAGE1_BASE] = run(STAGE1_BASE, [], scores, budget)
    if config.cold_start_steps:
        name = COLD_START if stage1 is not None else "cold start alone"
        load_weights(model, folder / "cold_start", STAGE2)
        systems[name] = run(name, trained, scores, budget)
        load_weights(model, folder / "adapter", STAGE2)
    systems[full] = run(full, trained, scores, budget)

    def ask(listings: list[Listing]) -> list[str]:
        with active(model, trained):
            return say(model, processor, listings, budget.document_chars, budget.max_new_tokens, budget.batch_size)

    report = {
        "stage": STAGE2,
        "data": config.data,
        "seed": config.seed,
        "adapter_mode": config.adapter_mode,
        **answered_by,
        "full": full,
        "baseline": STAGE1_BASE if stage1 is not None else BASE,
        "reported_on": reported_on(examples),
    }
    report |= report_systems(examples, systems, full, report["baseline"])
    report["evidence"] = evidence_test(systems[full][0], ask, examples)
    write_text(folder / "report.json", json.dumps(report, indent=2) + "\n")
    plot_terms(folder)
    notes = [
        f"Data: {config.data}, {report['reported_on']}; seed {config.seed}; adapter "
        f"`{report['adapter_hash'][:12]}`. Intervals are 95 % bootstrap over questions. At most "
        f"{config.max_documents} documents in a prompt."
        + (" The embedded tiny model knows only flags." if model.config.name_or_path == model_path("tiny") else ""),
        "",
        f"`{BASE}` gets BM25's best documents, the others what stage 1 keeps."
        + (f" `{COLD_START}` is what GRPO began with." if config.cold_start_steps else ""),
    ]
    write_text(folder / "report.md", markdown(report, "Stage 2: rank and answer", notes) + "\n![reward](reward.png)\n")
    console.print(terminal_table(report, report["reported_on"]))
    if report["evidence"]["questions"]:
        console.print(evidence_sentence(report["evidence"]), soft_wrap=True, highlight=False)
    return report


def load_test_examples(config: Stage2Config) -> tuple[list[Example], Corpus]:
    """The questions that the report is on, and the documents that BM25 counts words in."""
    limit = min(config.limit or config.report_questions, config.report_questions)
    _, examples, documents = load_report_examples([config.data], limit, Problems(config.skip_broken))
    return examples, Corpus(documents)


def headline(report: dict) -> dict[str, float]:
    """The figures of the full system that belong on the adapter's card."""
    return {name: round(figure["value"], 4) for name, figure in report["systems"][report["full"]].items()}
