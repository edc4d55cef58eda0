"""The training runs: settings, data, trainer, report. A run is one folder, and running it again continues it."""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

import torch
import yaml
from accelerate import PartialState
from datasets import Dataset
from filelock import FileLock, Timeout
from peft import get_peft_model
from rich.console import Console
from rich.progress import track
from transformers import ProcessorMixin, set_seed

from lite.config.launch import is_main
from lite.config.model import ModelConfig
from lite.data.images import LazyImage
from lite.data.pools import Pair
from lite.data.problems import Problems
from lite.data.sources import is_readable, load_training_pairs
from lite.evaluate.stage1 import stage1_report
from lite.files import UNFINISHED, write_text
from lite.models.adapters import base_fingerprint, save_adapter
from lite.models.loading import load_model, lora_config, vision_tokens
from lite.models.memory import REMEDIES
from lite.runs import STAGE1, read_settings, write_card
from lite.schema import Document, LiteError, open_image_file
from lite.stages.prompts import NO, YES, stage1_prompt
from lite.train import rewards
from lite.train.auto_fit import auto_fit
from lite.train.callbacks import MetricsFile, ProgressLine, train_to_the_end
from lite.train.trainer import StageConfig, StageTrainer, last_checkpoint, release

logger = logging.getLogger(__name__)

Row = TypeVar("Row")
Config = TypeVar("Config", bound="RunConfig")

# A run may be continued with other values of these; everything else decides the result.
FREE_SETTINGS = {
    "report_to", "logging_dir", "save_total_limit", "overwrite", "dry_run", "output_dir", "run_name", "auto_fit",
    "auto_fitted", "disable_tqdm",  # the last follows from the level of logging
    "stage1_adapter",  # wherever it lies: what counts is its hash
}  # fmt: skip


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


def alone(train: Callable[[Config, ModelConfig, Console], Path]) -> Callable[[Config, ModelConfig, Console], Path]:
    """A training that refuses to begin while another process trains in the same `output_dir`."""

    @wraps(train)
    def guarded(config: Config, model_config: ModelConfig, console: Console) -> Path:
        folder = Path(config.output_dir)
        folder.parent.mkdir(parents=True, exist_ok=True)
        # Beside the folder, which `overwrite` removes. The system lets go of it however the process ends.
        lock = FileLock(folder.parent / f".{folder.name}.lock")
        try:
            if is_main():
                lock.acquire(timeout=0)
        except Timeout as error:
            raise LiteError(
                f"Another process trains in {folder}. Wait for it or stop it; the same command then goes on from "
                "there. Or give another --output_dir."
            ) from error
        except (OSError, NotImplementedError) as error:  # no rights there, or a file system without locks
            logger.warning("Nothing keeps another training out of %s (%s).", folder, error)
        try:
            return train(config, model_config, console)
        finally:
            lock.release()

    return guarded


@alone
def train_stage1(config: Stage1Config, model_config: ModelConfig, console: Console) -> Path:
    """Train the relevance filter and report on it. Returns the run folder.

    Raises:
        LiteError: Something in the settings, the data or the run folder needs the user.
    """
    folder = Path(config.output_dir)
    fitted = auto_fit(config, model_config, 1, console)
    pairs = load_pairs(config)
    check_images((pair.document for pair in pairs), console)
    set_seed(config.seed)
    base, processor = load_model(model_config, config.use_cpu)
    settings = resolved_settings(config, model_config) | {"base_fingerprint": base_fingerprint(base)}
    settings["auto_fitted"] = fitted
    claim_together(folder, settings, config.overwrite)
    lengths = prompt_lengths(*pair_prompts(pairs, config.document_chars), processor)
    pairs = drop_long(pairs, lengths, config.max_prompt_tokens)
    model = get_peft_model(base, lora_config(model_config), adapter_name=STAGE1)
    config.generation_kwargs = {"suppress_tokens": vision_tokens(base)} | (config.generation_kwargs or {})
    train(
        StageTrainer(
            model=model,
            reward_funcs=[rewards.label, rewards.format],
            args=config,
            train_dataset=prompt_dataset(pairs, config.document_chars),
            processing_class=processor,
            callbacks=[MetricsFile(folder / "metrics.jsonl"), ProgressLine(console)],
        ),
        console,
    )
    if not is_main():
        return folder
    card = {
        "stage": STAGE1,
        "base": model_config.model_name_or_path,
        "base_fingerprint": settings["base_fingerprint"],
        "document_chars": config.document_chars,
        "max_pixels": model_config.max_pixels,
        "data": config.data,
        "seed": config.seed,
    }
    adapter = folder / "adapter"
    save_adapter(model, STAGE1, adapter, card)
    report = stage1_report(model, processor, config, folder, console)
    write_card(adapter, card | {"hash": report["adapter_hash"], **report["filter"]})
    console.print(f"Adapter: {adapter}\nReport:  {folder / 'report.md'}", soft_wrap=True)
    return folder


def load_pairs(config: Stage1Config) -> list[Pair]:
    """The training pairs of the data set, or of the mix."""
    problems = Problems(config.skip_broken)
    pairs = load_training_pairs(
        config.data, config.data_weights, config.limit, config.hard_share, config.seed, problems
    )
    if config.skip_broken:
        pairs = [pair for pair in pairs if is_readable(pair.document, problems)]
    if problems.messages:
        logger.warning(problems.summary())
    return pairs


def check_images(documents: Iterable[Document], console: Console) -> None:
    """Open every image once, so that a broken file ends the run before it starts and not at step 700."""
    with_image = {document.id: document for document in documents if document.image is not None}
    for document in track(with_image.values(), "checking images", console=console, transient=True):
        document.load_image()


def drop_long(rows: Sequence[Row], lengths: Sequence[int], max_prompt_tokens: int) -> list[Row]:
    """Leave out the rows whose prompt is longer than `max_prompt_tokens`, with a count."""
    kept = [row for row, length in zip(rows, lengths, strict=True) if length <= max_prompt_tokens]
    if len(kept) < len(rows):
        logger.warning(
            "%d of %d rows are left out: their prompts exceed max_prompt_tokens (%d).",
            len(rows) - len(kept), len(rows), max_prompt_tokens,
        )  # fmt: skip
    if not kept:
        raise LiteError(
            f"Every prompt exceeds max_prompt_tokens ({max_prompt_tokens}): the shortest has {min(lengths)}. "
            "Raise it, or lower max_pixels or document_chars."
        )
    return kept


def prompt_lengths(
    prompts: Sequence[list[dict]], documents: Sequence[Sequence[Document]], processor: ProcessorMixin
) -> list[int]:
    """Tokens of each prompt as the model will see it, with the images of the documents that it shows."""
    texts = processor.apply_chat_template(list(prompts), add_generation_prompt=True, tokenize=False)
    tokens = [len(ids) for ids in processor.tokenizer(texts, add_special_tokens=False)["input_ids"]]
    image_tokens: dict[str, int] = {}
    for i, shown in enumerate(documents):
        for document in shown:
            if document.image is None:
                continue
            if document.id not in image_tokens:
                sizes = processor._get_num_multimodal_tokens(image_sizes=[_image_size(document)])
                image_tokens[document.id] = sizes["num_image_tokens"][0]
            tokens[i] += image_tokens[document.id] - 1  # one placeholder is in the text already
    return tokens


def _image_size(document: Document) -> tuple[int, int]:
    """(height, width); of a file only the header is read."""
    if isinstance(document.image, LazyImage):
        width, height = document.image.size()
    elif callable(document.image):
        width, height = document.image().size
    else:
        with open_image_file(document.image) as opened:
            width, height = opened.size
    return height, width


def pair_prompts(pairs: Sequence[Pair], document_chars: int) -> tuple[list[list[dict]], list[tuple[Document, ...]]]:
    """The prompts of stage 1 and the document of each."""
    prompts = [stage1_prompt(pair.example.question, pair.document, document_chars) for pair in pairs]
    return prompts, [(pair.document,) for pair in pairs]


def prompt_dataset(pairs: Sequence[Pair], document_chars: int) -> Dataset:
    """The rows that TRL samples from. Images are opened when a batch is drawn."""

    def to_rows(batch: dict[str, list]) -> dict[str, list]:
        drawn = [pairs[i] for i in batch["pair"]]
        # A batch holds every pair as often as there are completions: open its image once.
        with_image = {pair.document.id: pair.document for pair in drawn if pair.document.image is not None}
        images = {i: [document.load_image()] for i, document in with_image.items()}
        return {
            "prompt": [stage1_prompt(pair.example.question, pair.document, document_chars) for pair in drawn],
            "images": [images.get(pair.document.id, []) for pair in drawn],
            "label": [YES if pair.relevant else NO for pair in drawn],
        }

    return Dataset.from_dict({"pair": range(len(pairs))}).with_transform(to_rows)


def train(trainer: StageTrainer, console: Console) -> None:
    """Train from the last checkpoint, or from the start; say how to go on when it is stopped."""
    folder = Path(trainer.args.output_dir)
    checkpoint = last_checkpoint(folder)
    if checkpoint and is_finished(checkpoint):
        # TRL would train one step beyond the last.
        console.print(f"{checkpoint} is the end of the training.", soft_wrap=True)
        trainer._load_from_checkpoint(str(checkpoint))
        return
    rows, at_once = len(trainer.train_dataset), trainer.args.generation_batch_size // trainer.num_generations
    if rows < at_once:
        # TRL draws whole batches only: it would draw none, and end at step 0 as if it had trained.
        raise LiteError(
            f"There are {rows} prompts to train on, fewer than the {at_once} that one generation takes. Give more data "
            "(--limit, --max_prompt_tokens), or lower per_device_train_batch_size or steps_per_generation."
        )
    if checkpoint:
        console.print(f"Continuing from {checkpoint}", soft_wrap=True)
    try:
        train_to_the_end(trainer, resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    except KeyboardInterrupt:
        raise LiteError(f"Stopped at step {trainer.state.global_step}. {how_to_go_on(folder)}") from None
    except torch.OutOfMemoryError as error:
        raise LiteError(
            f"The GPU's memory ran out at step {trainer.state.global_step + 1}, in {trainer.doing}: "
            f"{str(error).splitlines()[0]} Lower {REMEDIES[trainer.doing]}, and give another --output_dir with that; "
            f"--auto_fit true chooses by the estimate. If something else held memory: {how_to_go_on(folder)}"
        ) from error
    release(trainer)


def how_to_go_on(folder: Path) -> str:
    """What a stopped run says."""
    survivor = last_checkpoint(folder)
    return f"Run the same command again: it continues from {survivor.name if survivor else 'the start'}."


def is_finished(checkpoint: Path) -> bool:
    """Whether the checkpoint is the last one of its run."""
    state = json.loads((checkpoint / "trainer_state.json").read_text())
    return state["global_step"] >= state["max_steps"]


def resolved_settings(config: Stage1Config, model_config: ModelConfig) -> dict[str, Any]:
    """Every setting of the run as plain values, however many processes share its batch."""
    fields = {**config.to_dict(), **config.of_recipe, **dataclasses.asdict(model_config)}
    return yaml.safe_load(yaml.safe_dump({key: _plain(value) for key, value in sorted(fields.items())}))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def claim_together(folder: Path, settings: dict[str, Any], overwrite: bool) -> None:
    """`claim_folder` by the main process, for which the others wait."""
    if is_main():
        claim_folder(folder, settings, overwrite)
    PartialState().wait_for_everyone()


def claim_folder(folder: Path, settings: dict[str, Any], overwrite: bool) -> None:
    """Write `config.yaml`, unless the folder already holds a run with other settings, or something else."""
    path = folder / "config.yaml"
    before = read_settings(path) if path.exists() else None
    ours = isinstance(before, dict) and "base_fingerprint" in before
    if folder.exists() and not ours and any(file.suffix != UNFINISHED for file in folder.iterdir()):
        raise LiteError(f"{folder} is not empty and holds no run of ours. Give another --output_dir.")
    if overwrite and folder.exists():
        shutil.rmtree(folder)
    if path.exists():
        check_settings(folder, before, settings)
    folder.mkdir(parents=True, exist_ok=True)
    write_text(path, yaml.safe_dump(settings))


def check_settings(folder: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    """Refuse to go on in a run folder whose settings decide another result."""
    changed = [key for key in now if key not in FREE_SETTINGS and before.get(key) != now[key]]
    if changed:
        listed = "\n".join(f"  {key}: {before.get(key)!r} there, {now[key]!r} now" for key in changed)
        raise LiteError(
            f"{folder} holds a run with other settings:\n{listed}\n"
            "Give another --output_dir, or --overwrite true to throw that run away."
        )
