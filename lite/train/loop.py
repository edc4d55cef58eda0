"""One training run from its last checkpoint to its end, and the message when it stops."""

from __future__ import annotations

from pathlib import Path

import torch
from rich.console import Console

from lite.models.memory import REMEDIES
from lite.schema import LiteError, first_line
from lite.train.callbacks import train_to_the_end
from lite.train.run_folder import how_to_go_on, is_finished, last_checkpoint
from lite.train.trainer import StageTrainer
from lite.train.trl_fixes import release


def train(trainer: StageTrainer, console: Console) -> None:
    """Train from the last checkpoint, or from the start; when stopped, print how to continue."""
    folder = Path(trainer.args.output_dir)
    checkpoint = last_checkpoint(folder)
    if checkpoint and is_finished(checkpoint):
        # TRL would train one step more than max_steps.
        console.print(f"{checkpoint} is the last step of this run; nothing is left to train.", soft_wrap=True)
        trainer._load_from_checkpoint(str(checkpoint))
        return
    rows, at_once = len(trainer.train_dataset), trainer.args.generation_batch_size // trainer.num_generations
    if rows < at_once:
        # TRL draws whole batches only: it would draw none and stop at step 0 without an error.
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
            f"{first_line(error)} Lower {REMEDIES[trainer.doing]}, and give another --output_dir with that; "
            f"--auto_fit true chooses by the estimate. If something else held memory: {how_to_go_on(folder)}"
        ) from error
    release(trainer)
