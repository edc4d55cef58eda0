"""`auto_fit`: lower a run's settings until its estimated memory fits the card.

What costs least is lowered first, and only where it lowers the peak:

1. `steps_per_generation`: fewer completions are generated at once. A step learns from as many, but stage 2 brings the
   advantages of fewer groups to one scale, so that a group with almost equal rewards weighs more.
2. `per_device_train_batch_size`, down to 2, with more `gradient_accumulation_steps`: the same training, slower.
3. `num_generations`, down to 4: noisier advantages.
4. `max_pixels`, down to 256x256: coarser images. Only for families whose images have any size, as Qwen's.
5. `max_documents` (stage 2), down to 2: less to choose from, lower recall.

With pixels and documents, `max_prompt_tokens` shrinks as well, so that no prompt is longer than what was estimated.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TypeVar

import torch
from rich.console import Console

from lite.config.model import ModelConfig
from lite.config.runs import RunConfig, Stage2Config, with_values
from lite.models.fits import free_memory, free_ram
from lite.models.loading import model_path
from lite.models.memory import GIB, HALF, NF4_BYTES, USABLE, card_gib, run_estimate
from lite.models.shapes import Shape, shape_of
from lite.runs import read_settings
from lite.schema import LiteError

PIXELS_PER_TOKEN = 32 * 32  # of Qwen3-VL; no family's tokens save more of a prompt than that lets expect
logger = logging.getLogger(__name__)

SMALLEST_BATCH, FEWEST_GENERATIONS, FEWEST_PIXELS, FEWEST_DOCUMENTS = 2, 4, 256 * 256, 2
FIELDS = (
    "steps_per_generation", "generation_batch_size", "per_device_train_batch_size", "gradient_accumulation_steps",
    "num_generations", "max_pixels", "max_documents", "max_prompt_tokens",
)  # fmt: skip
Settings = dict[str, int]
Config = TypeVar("Config", bound=RunConfig)


def auto_fit(
    config: Config, model_config: ModelConfig, adapters: int, console: Console, assumed_gib: float | None = None
) -> tuple[Config, ModelConfig, dict[str, list[int]]]:
    """Settings that fit this machine's GPU; says what was changed.

    A run folder that this has fitted before is continued with what was chosen then, also on another card.

    Args:
        adapters: How many the run holds: 1 in stage 1, 2 in stage 2.
        assumed_gib: The card's size where there is no GPU; without one, nothing is changed then.

    Returns:
        The settings, and {field: [asked for, chosen]} of what was changed in them.

    Raises:
        LiteError: Nothing is left to lower.
    """
    if not config.auto_fit:
        return config, model_config, {}
    gib, shape = card_gib() or assumed_gib, shape_of(model_path(model_config.model_name_or_path))
    if gib is None or shape is None:
        what = "there is no GPU here" if gib is None else f"nothing is known of {model_config.model_name_or_path}"
        console.print(f"auto_fit: nothing to do, {what}.", soft_wrap=True)
        return config, model_config, {}
    asked = read(config, model_config)
    chosen = recorded(config, asked) or fit(shape, config, model_config, adapters, gib)
    changed = {name: [asked[name], chosen[name]] for name in asked if chosen[name] != asked[name]}
    for name, (before, after) in changed.items():
        console.print(f"auto_fit: {name} {before} → {after}", highlight=False)
    if not changed:
        console.print(f"auto_fit: the settings fit a card of {gib:.0f} GiB as they are.", highlight=False)
    return *write(config, model_config, chosen), changed


def check_size(config: RunConfig, model_config: ModelConfig, adapters: int) -> None:
    """Refuse a model that cannot be loaded, before it is downloaded; warn where its training may not fit.

    Args:
        adapters: How many the run holds.

    Raises:
        LiteError: Its weights alone take more than what is free.
    """
    name = model_config.model_name_or_path
    shape = shape_of(model_path(name))
    if shape is None:
        return
    on_gpu = torch.cuda.is_available() and not config.use_cpu
    free, each = (free_memory(), HALF) if on_gpu else (free_ram(), 4)
    packed = shape.quantised() * (NF4_BYTES if model_config.load_in_4bit else each) + shape.others * each
    needed = packed + adapters * shape.adapter(model_config.lora_r) * 4
    if needed > free:
        where = "the GPU" if on_gpu else "this machine's memory"
        raise LiteError(
            f"{name} and its adapters take {needed / GIB:.1f} GiB, and {free / GIB:.1f} GiB of {where} are free. Close "
            "other programs, or choose a smaller model (docs/gpu.md)."
        )
    images = config.max_documents if isinstance(config, Stage2Config) else 1
    memory = run_estimate(shape, config, model_config, config.max_prompt_tokens, images, adapters)
    if on_gpu and memory["peak"] > USABLE * (card_gib() or 0):
        logger.warning(
            "With the longest prompts that max_prompt_tokens allows, training may take %.1f GiB by the estimate, more "
            "than this GPU has to spare. --auto_fit true lowers settings until it fits.", memory["peak"],
        )  # fmt: skip


def fit(shape: Shape, config: RunConfig, model_config: ModelConfig, adapters: int, gib: float) -> Settings:
    """The settings of `FIELDS` that fit a card of `gib` GiB by the estimate. Changes nothing."""

    def peak(settings: Settings) -> float:
        tried, tried_model = write(config, model_config, settings)
        images = settings.get("max_documents", 1)
        return run_estimate(shape, tried, tried_model, settings["max_prompt_tokens"], images, adapters)["peak"]

    chosen = read(config, model_config)
    steps = [step for step in STEPS if shape.any_size or step is not _fewer_pixels]
    while (now := peak(chosen)) > USABLE * gib:
        lower = (lowered for step in steps if (lowered := step(chosen)) and peak(lowered) < now)
        following = next(lower, None)
        if following is None:
            raise LiteError(
                f"auto_fit: by the estimate the run takes {now:.1f} GiB with everything at its least, and of the "
                f"card's {gib:.0f} GiB {USABLE:.0%} can be counted on. Take a smaller model, or lower "
                "max_completion_length and max_prompt_tokens."
            )
        chosen = following
    return chosen


def read(config: RunConfig, model_config: ModelConfig) -> Settings:
    """The settings that may be lowered."""
    values = vars(config) | vars(model_config)
    return {name: values[name] for name in FIELDS if values.get(name) is not None}


def write(config: Config, model_config: ModelConfig, settings: Settings) -> tuple[Config, ModelConfig]:
    """Both configurations with these settings."""
    pixels = {name: value for name, value in settings.items() if name == "max_pixels"}
    others = {name: value for name, value in settings.items() if name != "max_pixels"}
    return with_values(config, **others), with_values(model_config, **pixels)


def recorded(config: RunConfig, asked: Settings) -> Settings | None:
    """What was chosen when the run in `output_dir` began, if it was asked for the same."""
    path = Path(config.output_dir) / "config.yaml"
    if config.overwrite or not path.exists():
        return None
    before = read_settings(path).get("auto_fitted") or {}
    chosen = asked | {name: after for name, (_, after) in before.items()}
    same = all(asked.get(name) == was for name, (was, _) in before.items())
    return chosen if before and same else None


# ---- one notch each; None at the floor -------------------------------------------------------------------------------


def _fewer_at_once(now: Settings) -> Settings | None:
    steps = now["steps_per_generation"]
    half = steps // 2
    if steps % 2 or half * now["per_device_train_batch_size"] % now["num_generations"]:
        return None
    return now | {"steps_per_generation": half, "generation_batch_size": now["generation_batch_size"] // 2}


def _smaller_batches(now: Settings) -> Settings | None:
    batch = now["per_device_train_batch_size"]
    if batch % 2 or batch <= SMALLEST_BATCH:
        return None
    doubled = {name: 2 * now[name] for name in ("gradient_accumulation_steps", "steps_per_generation")}
    return now | {"per_device_train_batch_size": batch // 2} | doubled


def _fewer_generations(now: Settings) -> Settings | None:
    group, batch = now["num_generations"], now["per_device_train_batch_size"]
    if group % 2 or group // 2 < FEWEST_GENERATIONS:
        return None
    if batch % 2 == 0:  # as many prompts per batch
        halved = {"per_device_train_batch_size": batch // 2}
    elif now["steps_per_generation"] % 2 == 0:
        names = ("steps_per_generation", "gradient_accumulation_steps")
        halved = {name: now[name] // 2 for name in names}
    else:
        return None
    return now | {"num_generations": group // 2, "generation_batch_size": now["generation_batch_size"] // 2} | halved


def _fewer_pixels(now: Settings) -> Settings | None:
    pixels = now.get("max_pixels", 0)
    fewer = max(FEWEST_PIXELS, pixels * 3 // 4 // PIXELS_PER_TOKEN * PIXELS_PER_TOKEN)
    if fewer >= pixels:
        return None
    saved = (pixels - fewer) // PIXELS_PER_TOKEN * now.get("max_documents", 1)
    return now | {"max_pixels": fewer, "max_prompt_tokens": now["max_prompt_tokens"] - saved}


def _fewer_documents(now: Settings) -> Settings | None:
    documents = now.get("max_documents", 1)
    if documents <= FEWEST_DOCUMENTS:
        return None
    shorter = now["max_prompt_tokens"] * (documents - 1) // documents
    return now | {"max_documents": documents - 1, "max_prompt_tokens": shorter}


STEPS = (_fewer_at_once, _smaller_batches, _fewer_generations, _fewer_pixels, _fewer_documents)
