"""One run in several processes: what a recipe has to know about it. accelerate, torch and TRL do the rest.

`accelerate launch` starts the processes and tells each of them its rank in environment variables.
"""

from __future__ import annotations

import copy
import json
import math
import os
from datetime import timedelta
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from lite.schema import LiteError

if TYPE_CHECKING:
    from transformers import TrainingArguments

Arguments = TypeVar("Arguments", bound="TrainingArguments")


def processes() -> int:
    """How many processes share this run."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_main() -> bool:
    """Whether this process is the one that writes and prints."""
    return int(os.environ.get("RANK", "0")) == 0


def first_to_fail() -> bool:
    """Whether this process is the first of the run to stop with an error: the others' errors only follow from it.

    Asked once per process, where it stops.
    """
    if processes() == 1:
        return True
    from torch.distributed import TCPStore

    # The store by which the processes found each other; the launcher keeps it.
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    store = TCPStore(address, port, is_master=False, timeout=timedelta(seconds=30))
    return store.add(f"lite/failed/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", 1) == 1


def leave() -> None:
    """End this process's part in a run of several, at its end.

    The threads by which the processes talk must have ended when Python does; one that has not aborts the process, and
    the launcher then stops the others, of which the main one may still be writing its report.
    """
    from torch import distributed

    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


def share_of_batch(
    per_device: int, accumulation: int, steps_per_generation: int | None, generation_batch: int | None, group: int
) -> tuple[int, int, int | None]:
    """What each process takes of a recipe's batch, so that the run stays the same run, only faster.

    First the gradient accumulation is divided, then the rows of a forward pass.

    Args:
        per_device, accumulation, steps_per_generation, generation_batch: As in TRL's GRPOConfig, for one process.
        group: `num_generations`; a group is never split across processes.

    Returns:
        The first three for each of `processes()`.

    Raises:
        ValueError: The batch cannot be divided so; it says which number to change.
    """
    count = processes()
    if count == 1:
        return per_device, accumulation, steps_per_generation  # TRL checks them
    steps = steps_per_generation or accumulation
    shared = math.gcd(count, accumulation, steps)
    rows, left = divmod(per_device, count // shared)
    generated = generation_batch or per_device * steps
    if left or generated % (count * group):
        whole = math.lcm(count * group, per_device) // per_device
        raise ValueError(
            f"{per_device} × {steps} completions of one generation are {per_device * steps / group:g} groups of "
            f"num_generations ({group}); {count} processes cannot take whole groups of them. Set "
            f"gradient_accumulation_steps to {math.lcm(whole, count)}, or start fewer processes"
        )
    return rows, accumulation // shared, steps_per_generation and steps_per_generation // shared


def for_processes(args: Arguments) -> Arguments:
    """A copy of `args` with which several processes, each on one GPU, can train a LoRA adapter.

    Every weight that learns takes part in every pass, so none has to be looked for; and buffers, which nobody changes,
    must not be sent around at every pass: processes differ in how many passes their prompts take.
    """
    args = copy.copy(args)
    args.ddp_find_unused_parameters = False
    args.ddp_broadcast_buffers = False
    # Where one process sees several GPUs, transformers multiplies the batch by their number, for a DataParallel that a
    # 4-bit model does not get. TRL's sampler does not know of it, and most prompts would never be drawn.
    args._n_gpu = min(1, args.n_gpu)
    if args.use_cpu and processes() > 1:
        _name_cpus()
    return args


@cache
def _name_cpus() -> None:
    # accelerate calls the processor `cpu:0` where several processes share it, which torch.load does not know when a
    # run is resumed. Remove when one of them does.
    from torch.serialization import register_package

    register_package(9, lambda storage: None, lambda storage, place: storage if place.startswith("cpu:") else None)


def check_launch(load_in_4bit: bool) -> None:
    """Refuse what `accelerate launch` was asked for and cannot work.

    Raises:
        LiteError: A 4-bit base would have to be sharded over the cards, or DeepSpeed is not installed.
    """
    stage = _zero_stage()
    fully_sharded = os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"
    if load_in_4bit and (stage == 3 or fully_sharded):
        raise LiteError(
            f"{'FSDP' if fully_sharded else 'ZeRO-3'} divides every weight among the cards, and a 4-bit base cannot be "
            "divided: bitsandbytes packs its weights with block-wise scales that belong to the whole tensor. In 4 bits "
            "the base fits each card: take ACCELERATE=multi_gpu or zero2. Or set load_in_4bit: false."
        )
    if stage is not None and not find_spec("deepspeed"):
        raise LiteError("ZeRO needs DeepSpeed: pip install 'mmrag-lite[deepspeed]'. ACCELERATE=multi_gpu does without.")


def _zero_stage() -> int | None:
    """DeepSpeed's ZeRO stage, as accelerate passes it on; None without DeepSpeed."""
    if os.environ.get("ACCELERATE_USE_DEEPSPEED", "false").lower() != "true":
        return None
    file = os.environ.get("ACCELERATE_DEEPSPEED_CONFIG_FILE", "none")
    if file.lower() != "none":
        return int(json.loads(Path(file).read_text()).get("zero_optimization", {}).get("stage", 0))
    return int(os.environ.get("ACCELERATE_DEEPSPEED_ZERO_STAGE", "2"))
