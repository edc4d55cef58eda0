"""P(relevant) of many documents without generating a token."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext

import numpy as np
import torch
from transformers import PreTrainedModel, ProcessorMixin

from lite.models import shared_prompt
from lite.models.inputs import encode, without_thinking
from lite.models.merged import merged
from lite.schema import Document, LiteError
from lite.stages.prompts import NO, YES, stage1_prompt


@torch.inference_mode()
def score(
    model: PreTrainedModel,
    processor: ProcessorMixin,
    pairs: Sequence[tuple[str, Document]],
    document_chars: int,
    batch_size: int = 64,
    progress: Callable[[int], None] = lambda done: None,
) -> np.ndarray:
    """P(relevant) = softmax over the logits of `Yes` and `No` at the first completion position.

    Args:
        model: With whatever adapters are active.
        processor: Of the same model; pads on the left.
        pairs: (question, document).
        document_chars: As in training, see `stage1_prompt`.
        batch_size: Pairs per forward pass. Pairs of one question are put together: what their prompts share, the
            instruction and the question, is computed once.
        progress: Called with the number of pairs that each batch finished.

    Returns:
        `[len(pairs)]`, float64, in the order of `pairs`.
    """
    yes, no = answer_tokens(processor)
    template = without_thinking(processor)
    prompts = [stage1_prompt(question, document, document_chars) for question, document in pairs]
    shares = shared_prompt.unshared(model) is None
    batches = _by_question(pairs, batch_size) if shares else _by_length(pairs, prompts, batch_size)
    scores = np.empty(len(pairs))
    with evaluating(model), merged(model), shared_prompt.attending(model) if shares else nullcontext():
        for batch in batches:
            inputs = encode(processor, [prompts[i] for i in batch], [pairs[i][1] for i in batch], **template)
            inputs = inputs.to(model.device)
            if shares:
                logits = shared_prompt.last_logits(model, **inputs)
            else:
                logits = model(**inputs, logits_to_keep=1, use_cache=False).logits[:, -1]
            logits = logits.double()
            scores[batch] = torch.sigmoid(logits[:, yes] - logits[:, no]).cpu().numpy()
            progress(len(batch))
    return scores


def answer_tokens(processor: ProcessorMixin) -> tuple[int, int]:
    """The ids of the first tokens of `Yes` and `No`."""
    yes, no = (processor.tokenizer.encode(word, add_special_tokens=False)[0] for word in (YES, NO))
    if yes == no:
        raise LiteError(
            f"This model's tokenizer starts {YES!r} and {NO!r} with one token; it cannot be used in stage 1."
        )
    return yes, no


@contextmanager
def evaluating(model: PreTrainedModel) -> Iterator[None]:
    """Eval mode, and back to what it was."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def _by_question(pairs: Sequence[tuple[str, Document]], batch_size: int) -> list[list[int]]:
    """Batches of one question each; questions with one document, which share the instruction, together."""
    count = Counter(question for question, _ in pairs)
    groups: dict[str | None, list[int]] = defaultdict(list)
    for i, (question, _) in enumerate(pairs):
        groups[question if count[question] > 1 else None].append(i)
    return [batch for group in groups.values() for batch in _chunks(group, batch_size)]


def _by_length(pairs: Sequence[tuple[str, Document]], prompts: list[list[dict]], batch_size: int) -> list[list[int]]:
    """Batches of similar length, so that little is padding."""

    # Text length stands in for the number of tokens: images of one model have nearly one size.
    def length(i: int) -> tuple[bool, int]:
        return pairs[i][1].image is not None, sum(len(part.get("text", "")) for part in prompts[i][0]["content"])

    return _chunks(sorted(range(len(pairs)), key=length), batch_size)


def _chunks(items: list[int], size: int) -> list[list[int]]:
    return [items[start : start + size] for start in range(0, len(items), size)]
