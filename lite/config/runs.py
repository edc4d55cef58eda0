"""The settings of both stages: TRL's GRPOConfig, what lite adds to it, and what each stage adds to that."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

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
        metadata={
            "help": "Compute a prompt once per group. False: once per completion, as TRL does; same result, slower."
        },
    )
    sampling_weights: Literal["auto", "merged", "packed"] = field(
        default="packed",
        metadata={
            "help": "What completions are sampled with on a GPU. `packed`: 4-bit weights and the adapters. `merged`: "
            "both merged into 16-bit matrices while sampling, 6.8 GiB more for a 4B model; TRL's importance sampling "
            "corrects what that rounds differently. `auto`: merged where memory has room. That merged weights train as "
            "well has not been measured, so packed is the default. A CPU always merges, in float32, which is exact."
        },
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
            "with commas between, several data sets are mixed."
        },
    )
    skip_broken: bool = field(
        default=False, metadata={"help": "Leave out broken lines and images, with a count, instead of stopping."}
    )
    limit: int | None = field(default=None, metadata={"help": "Use only the first N questions of each split."})
    document_chars: int = field(
        default=2000,
        metadata={
            "help": "Characters of a document's text in a prompt; of longer texts, the beginning and the end are kept."
        },
    )
    hard_share: float = field(
        default=0.6,
        metadata={
            "help": "Share of the irrelevant documents that are easily mistaken for relevant ones; the rest are random."
        },
    )
    max_prompt_tokens: int = field(
        default=4096, metadata={"help": "Longer prompts are left out and counted; nothing is cut off."}
    )
    report_questions: int = field(
        default=500,
        metadata={"help": "At most so many questions per data set tune the threshold, and as many are reported on."},
    )
    auto_fit: bool = field(
        default=False,
        metadata={
            "help": "If the estimated memory exceeds the GPU's, lower these settings, in this order, as far as needed: "
            "steps_per_generation, per_device_train_batch_size (neither changes how many completions a step has), "
            "num_generations, max_pixels, max_documents. Prints what it changed; config.yaml keeps it."
        },
    )
    overwrite: bool = field(default=False, metadata={"help": "Delete what output_dir holds and start again."})
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
        metadata={
            "help": "For several data sets: proportions in which their training pairs are mixed. Unset: all pairs."
        },
    )
    min_recall: float = field(
        default=0.98, metadata={"help": "Share of the relevant dev documents that the filter's threshold must keep."}
    )
    hard_pool_size: int = field(default=30, metadata={"help": "Documents per question in the report's hard pools."})
    first_word_credit: float = field(
        default=0.0,
        metadata={
            "help": "Share of both rewards for a completion that begins with `Yes` or `No` but goes on, such as "
            "`Yes, the document says so`. Helps a chatty model that hardly ever stops after the word; 0: none."
        },
    )

    def __post_init__(self):
        super().__post_init__()
        if not 0 <= self.first_word_credit < 1:
            raise ValueError(
                f"first_word_credit is {self.first_word_credit}. Give a share, from 0 to below 1: what goes on must "
                "earn less than the word alone."
            )


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
            "is trained further. `fresh`: a new adapter on the base model, documents in BM25's order (no stage 1).",
            "choices": ["stack", "continue", "fresh"],
        },
    )
    multi_objective_aggregation: str = field(
        default="normalize_then_sum",
        metadata={
            "help": "`normalize_then_sum` (GDPO): each reward is normalised within its group, so that its weight alone "
            "decides how much it counts, not its spread. `sum_then_normalize`: TRL's default, see scale_rewards.",
            "choices": ["normalize_then_sum", "sum_then_normalize"],
        },
    )
    max_documents: int = field(default=6, metadata={"help": "At most so many documents in a prompt."})
    quotes: bool = field(
        default=False,
        metadata={
            "help": "Ask for short quotes in the reasoning, and reward those that are in the cited document; they are "
            "shown where they stand. Prompts of adapters trained without them do not ask."
        },
    )
    prompts_per_question: int = field(
        default=1,
        metadata={"help": "Prompts per training question, each with other irrelevant documents in another order."},
    )
    unanswerable_share: float = field(
        default=0.05, metadata={"help": "Share of the training prompts without any relevant document."}
    )
    as_filtered_share: float = field(
        default=0.0,
        metadata={
            "help": "Share of the training prompts with only what stage 1 lets through, as in use: a relevant document "
            "may be missing. The other prompts hold all relevant documents."
        },
    )
    report_orders: int = field(
        default=1,
        metadata={
            "help": "Orders of the documents in which the report asks each question; its figures are means over them. "
            "More: narrower intervals if answers depend on the order, as a small model's do, but a slower report."
        },
    )
    cold_start_steps: int = field(
        default=0,
        metadata={
            "help": "Supervised steps before GRPO, on reasoning composed from the labels. Instruct models need 0."
        },
    )
    cold_start_batch_size: int = field(default=16, metadata={"help": "Rows per step of the cold start."})
    cold_start_learning_rate: float = field(default=1e-4, metadata={"help": "Learning rate of the cold start."})
    cold_start_caption: str | None = field(
        default=None,
        metadata={
            "help": "What the base model is asked about every relevant image, such as `Describe the image in a "
            "sentence.` The reasoning of the cold start includes the reply. Unset: it has the answer only."
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
