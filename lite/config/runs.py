"""The settings of both stages: TRL's GRPOConfig, what lite adds to it, and what each stage adds to that."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, field
from typing import Any, TypeVar

from trl import GRPOConfig

from lite.config.launch import share_of_batch

Config = TypeVar("Config")


def with_values(config: Config, **values: Any) -> Config:
    """A copy of settings with some of them changed; the original stays as it is.

    Unlike `dataclasses.replace`, nothing is derived again: the batch is divided among the processes once only.
    """
    changed = copy.copy(config)
    vars(changed).update(values)
    return changed


@dataclass
class StageConfig(GRPOConfig):
    """TRL's GRPOConfig and what `StageTrainer` adds to it."""

    shared_prompt: bool = field(
        default=True,
        metadata={"help": "Compute a prompt once per group. False: per completion, as TRL does; same result, slower."},
    )

    def __post_init__(self):
        if self.deepspeed or self.fsdp:
            raise ValueError("deepspeed and fsdp are settled by the launcher's file: see recipes/accelerate/")
        # A recipe's batch is the whole batch: several processes share it, so that they train the same run.
        names = ("per_device_train_batch_size", "gradient_accumulation_steps", "steps_per_generation")
        self.of_recipe = {name: getattr(self, name) for name in names}
        shares = share_of_batch(*self.of_recipe.values(), self.generation_batch_size, self.num_generations)
        for name, share in zip(names, shares, strict=True):
            setattr(self, name, share)
        super().__post_init__()


@dataclass
class RunConfig(StageConfig):
    """What the runs of both stages share beyond TRL's GRPOConfig."""

    num_completions_to_print: int = field(
        default=0, metadata={"help": "Completions that TRL prints at every log; completions/*.parquet has them all."}
    )
    data: str = field(
        default="flags",
        metadata={
            "help": "The data set: `flags` (bundled), `webqa:DIR`, `multimodalqa:DIR` or `jsonl:FILE`. Repeated, or "
            "with commas between, it is a mix."
        },
    )
    skip_broken: bool = field(
        default=False, metadata={"help": "Leave out broken lines and images, with a count, instead of stopping."}
    )
    limit: int | None = field(default=None, metadata={"help": "Use only the first N questions of each split."})
    document_chars: int = field(
        default=2000,
        metadata={"help": "Longer document texts keep their beginning and their end, to this many characters."},
    )
    hard_share: float = field(
        default=0.6, metadata={"help": "Share of the negatives that are easy to mistake; the rest are random."}
    )
    max_prompt_tokens: int = field(
        default=4096, metadata={"help": "Rows whose prompt is longer are left out, with a count; nothing is cut."}
    )
    report_questions: int = field(
        default=500, metadata={"help": "Questions per data set that the report tunes on, and reports on, at most."}
    )
    auto_fit: bool = field(
        default=False,
        metadata={
            "help": "Where the estimate exceeds the GPU's memory, lower, in this order, as far as needed: "
            "steps_per_generation, per_device_train_batch_size (neither changes how many completions a step has), "
            "num_generations, max_pixels, max_documents. Prints what it changed; config.yaml keeps it."
        },
    )
    overwrite: bool = field(default=False, metadata={"help": "Throw away what output_dir holds and start anew."})
    dry_run: bool = field(
        default=False, metadata={"help": "Print settings, data, prompt lengths and a memory estimate; train nothing."}
    )

    def __post_init__(self):
        super().__post_init__()
        if not 0 <= self.hard_share <= 1:
            raise ValueError(f"hard_share is a share, from 0 to 1, not {self.hard_share}.")
        if self.max_steps < 1 and self.max_steps != -1:
            raise ValueError(f"max_steps is {self.max_steps}. Give the optimiser steps, or -1 for num_train_epochs.")
        between = self.steps_per_generation * self.num_iterations
        steps = self.save_steps
        if steps < 1:  # a share of the run, which transformers counts out; of epochs it is not known yet
            steps = math.ceil(self.max_steps * steps) if self.max_steps > 0 else 1
        if self.save_strategy == "steps" and steps * self.gradient_accumulation_steps % between:
            # TRL keeps neither what it has generated nor how far it got with that.
            least = between // math.gcd(between, self.gradient_accumulation_steps)
            raise ValueError(
                f"save_steps is {self.save_steps:g}: a checkpoint would fall between two generations, and a resumed "
                f"run would go on differently. Give a multiple of {least}."
            )
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"limit counts questions: {self.limit} would leave none.")


@dataclass
class Stage1Config(RunConfig):
    """The settings of a stage 1 run."""

    data_weights: list[float] | None = field(
        default=None,
        metadata={"help": "Of a mix: how the training pairs divide among its data sets. Unset: all pairs of all."},
    )
    min_recall: float = field(default=0.98, metadata={"help": "Recall on dev that the filter's threshold must keep."})
    hard_pool_size: int = field(default=30, metadata={"help": "Documents per question in the report's hard pools."})


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
