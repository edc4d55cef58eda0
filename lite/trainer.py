"""TRL's GRPOTrainer with the few things mended that a 4-bit vision-language model with named adapters needs.

Each override says what it mends in TRL 1.14 and when it can go. Everything else is TRL.
"""

from __future__ import annotations

import json
import logging
import re
import shutil
from pathlib import Path

from datasets import Dataset
from peft import PeftModel
from transformers import PrinterCallback, ProcessorMixin, ProgressCallback, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from lite.schema import LiteError

logger = logging.getLogger(__name__)


class StageTrainer(GRPOTrainer):
    """Trains the active adapter of `model` by GRPO.

    Args:
        model: A PEFT model; the adapter's name is free.
        reward_funcs: See `lite.rewards`.
        args: TRL's configuration, or ours that extends it.
        train_dataset: Rows with `prompt` (one turn with image placeholders), `images` (a list, may be empty) and the
            columns that the rewards ask for.
        processing_class: The model's processor.
        callbacks: Added to TRL's.
    """

    def __init__(
        self,
        model: PeftModel,
        reward_funcs: list,
        args: GRPOConfig,
        train_dataset: Dataset,
        processing_class: ProcessorMixin,
        callbacks: list[TrainerCallback] | None = None,
    ):
        # With beta > 0 TRL copies an adapter that must be named `default` to one named `ref`. Our adapters have names
        # of their own and the reference needs no copy, so TRL is built with beta 0 and told the true one afterwards;
        # it then takes the model with its adapters disabled as the reference. Goes when TRL asks for the active
        # adapter's name.
        beta, args.beta = args.beta, 0.0
        super().__init__(
            model=model,
            reward_funcs=reward_funcs,
            args=args,
            train_dataset=train_dataset,
            processing_class=processing_class,
            callbacks=callbacks,
        )
        self.beta = args.beta = beta
        for replaced in (ProgressCallback, PrinterCallback):  # by lite.callbacks.ProgressLine
            self.remove_callback(replaced)
        # TRL casts the adapter of a quantised model to bf16. Its weights are around 0.05, where bf16 has steps of
        # 2e-4, so most of Adam's updates at a learning rate of 1e-5 would round to nothing. fp32 costs 4 more bytes
        # per weight of an adapter of 1 % of the model. Goes with peft#2889.
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()

    def _tokenize_prompts(self, prompts: list):
        # TRL hands `None` for a prompt without an image to the processor, which takes `[]`: a batch of image and text
        # documents crashes. Goes when TRL passes empty lists.
        prompt_ids, images, fields = super()._tokenize_prompts(prompts)
        return prompt_ids, images and [row or [] for row in images], fields

    def _save_checkpoint(self, model, trial) -> None:
        # A checkpoint that a full disk cut short would be taken for the newest one at the next start.
        try:
            super()._save_checkpoint(model, trial)
        except Exception as error:
            folder = Path(self.args.output_dir)
            shutil.rmtree(folder / f"checkpoint-{self.state.global_step}", ignore_errors=True)
            survivor = last_checkpoint(folder)
            raise LiteError(
                f"Could not write checkpoint-{self.state.global_step} to {folder} ({error}). "
                f"{shutil.disk_usage(folder).free / 2**20:.0f} MiB are free there. "
                + (f"{survivor.name} is intact. " if survivor else "")
                + "Make room, then run the same command again: it continues from the last checkpoint."
            ) from error


def last_checkpoint(folder: Path) -> Path | None:
    """The newest complete checkpoint of a run. The trainer's state is written last, so it tells a complete one."""
    for checkpoint in sorted(folder.glob("checkpoint-*"), key=_step, reverse=True):
        try:
            json.loads((checkpoint / "trainer_state.json").read_text())
        except (OSError, ValueError):
            logger.warning("Leaving out %s: it was not written to the end.", checkpoint)
            continue
        return checkpoint
    return None


def _step(checkpoint: Path) -> int:
    match = re.fullmatch(r"checkpoint-(\d+)", checkpoint.name)
    return int(match.group(1)) if match else -1
