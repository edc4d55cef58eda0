"""Log-probs of completions with the logits of a few positions at a time.

The logits of 8 answers of 500 tokens take 4 GB in a vocabulary of 248,000, and their gradient as much again, which is
more than the rest of a step. Above a limit, the output layer is therefore applied to some positions, what is wanted of
their logits is kept, and the backward pass computes them once more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from peft import PeftModel
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from lite.models.layers import base_of
from lite.schema import LiteError

# (logits [n, m, V], tokens [n, m]) -> log-probs [n, m] and, if wanted, entropies [n, m]
LogSoftmax = Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor | None]]
AT_ONCE = 2**29  # bytes of float32 logits


def positions_at_once(vocabulary: int) -> int:
    """Positions whose logits are computed together, at least one."""
    return max(1, AT_ONCE // (4 * vocabulary))


def vocabulary_of(model: PreTrainedModel | PeftModel) -> int:
    """Logits of a position."""
    return base_of(model).get_output_embeddings().out_features


def log_probs(
    model: PreTrainedModel | PeftModel,
    log_softmax: LogSoftmax,
    tokens: torch.Tensor,
    forward: Callable[[], torch.Tensor],
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """What `log_softmax` makes of a forward's logits: at once below `AT_ONCE`, else in chunks of positions.

    Args:
        tokens: [n, m], those to look up.
        forward: Calls `model` and returns its logits [n, m, V].

    Returns:
        Log-probs [n, m] and entropies [n, m] or None.

    Raises:
        LiteError: The model changes its logits behind the output layer, so that they are not known there.
    """
    if tokens.numel() <= positions_at_once(vocabulary_of(model)):
        return log_softmax(forward(), tokens)
    with _in_chunks(model, log_softmax, tokens) as made:
        returned = forward()
    if len(made) != 1 or not torch.allclose(returned, made[0], rtol=0, atol=0, equal_nan=True):
        kind = base_of(model).config.model_type
        raise LiteError(
            f"{kind} does something to its logits behind the output layer, so they cannot be computed in chunks. Lower "
            "per_device_train_batch_size or max_completion_length, and please report the model."
        )
    logps, *entropies = made[0].unbind(-1)
    return logps, entropies[0] if entropies else None


@contextmanager
def _in_chunks(
    model: PreTrainedModel | PeftModel, log_softmax: LogSoftmax, tokens: torch.Tensor
) -> Iterator[list[torch.Tensor]]:
    """Inside, the output layer gives [n, m, log-prob and entropy] in place of logits [n, m, V]; the list keeps it."""
    head = base_of(model).get_output_embeddings()
    project, replaced = head.forward, head.__dict__.get("forward")
    count = positions_at_once(vocabulary_of(model))
    made: list[torch.Tensor] = []

    def of_chunk(states: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """[k, hidden] and [k] -> [k, 1 or 2]"""
        found = log_softmax(project(states)[None].float(), targets[None])
        return torch.stack([values[0] for values in found if values is not None], -1)

    def forward(hidden: torch.Tensor) -> torch.Tensor:
        chunks = zip(hidden.flatten(0, 1).split(count), tokens.flatten().split(count), strict=True)
        learns = torch.is_grad_enabled() and hidden.requires_grad
        parts = [
            checkpoint(of_chunk, *chunk, use_reentrant=False, preserve_rng_state=False) if learns else of_chunk(*chunk)
            for chunk in chunks
        ]
        made.append(torch.cat(parts).unflatten(0, tokens.shape))
        return made[-1]

    head.forward = forward
    try:
        yield made
    finally:
        del head.forward
        if replaced is not None:
            head.forward = replaced
