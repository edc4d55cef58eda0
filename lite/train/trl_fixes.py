"""What every trainer of TRL needs around it, supervised ones too: an exact adapter, and no autocast left behind."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from peft import PeftModel
from transformers import PrinterCallback, ProgressCallback, Trainer
from trl import GRPOTrainer

from lite.models.chunked_logits import positions_at_once, vocabulary_of


def learning(model: PeftModel) -> dict[str, torch.Tensor]:
    """Copies of the weights that learn, by name: for `adjust`, from before a trainer of TRL's is built."""
    return {name: weight.detach().clone() for name, weight in model.named_parameters() if weight.requires_grad}


def adjust(trainer: Trainer, exact: dict[str, torch.Tensor]) -> None:
    """What a trainer needs once it is built: lite's progress line instead of the bars, and an exact adapter.

    TRL casts the adapter of a quantised model to bf16. Its weights are around 0.05, where bf16 has steps of 2e-4, so
    most of Adam's updates at a learning rate of 1e-5 would round to nothing, and one that has learnt already starts
    from something else than it was. fp32 costs 4 more bytes per weight of an adapter of 1 % of the model. Remove with
    peft#2889.
    """
    for replaced in (ProgressCallback, PrinterCallback):  # by lite.train.callbacks.ProgressLine
        trainer.remove_callback(replaced)
    for name, parameter in trainer.model.named_parameters():
        if parameter.requires_grad:
            parameter.data = exact[name].to(parameter.device, torch.float32)


def release(trainer: Trainer) -> None:
    """Take accelerate's autocast off the model after training, so that scores match those of a freshly loaded model."""
    trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)


@contextmanager
def few_logits_at_once(
    trainer: GRPOTrainer, rows: int, completion_length: int, batch_size: int | None
) -> Iterator[int | None]:
    """Inside, TRL's log-probs of whole rows do without the logits of all of them, where those would be too many.

    TRL computes them in chunks with `use_liger_kernel` only, although that way needs no such kernel. It forwards all
    rows together, so where nothing learns, fewer rows at a time do it. Remove when TRL chunks without Liger.

    Yields:
        Rows to forward at a time, in place of `batch_size`.
    """
    at_once = positions_at_once(vocabulary_of(trainer.model)) // (completion_length + 1)
    before = trainer.use_liger_kernel
    if torch.is_grad_enabled():
        trainer.use_liger_kernel = before or rows > at_once
    elif rows > at_once:
        batch_size = max(1, min(batch_size or rows, at_once))
    try:
        yield batch_size
    finally:
        trainer.use_liger_kernel = before
