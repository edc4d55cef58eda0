"""P(relevant) of many documents without generating a token."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from transformers import PreTrainedModel, ProcessorMixin

from lite.prompts import NO, YES, stage1_prompt
from lite.schema import Document, LiteError


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
        batch_size: Pairs per forward pass. Pairs of similar length are put together, so that little is padding.
        progress: Called with the number of pairs that each batch finished.

    Returns:
        `[len(pairs)]`, float64, in the order of `pairs`.
    """
    yes, no = answer_tokens(processor)
    prompts = [stage1_prompt(question, document, document_chars) for question, document in pairs]
    # Text length stands in for the number of tokens: images of one model have nearly one size.
    by_length = sorted(range(len(pairs)), key=lambda i: (pairs[i][1].image is not None, _text_length(prompts[i])))
    scores = np.empty(len(pairs))
    with evaluating(model):
        for start in range(0, len(pairs), batch_size):
            batch = by_length[start : start + batch_size]
            inputs = encode(processor, [prompts[i] for i in batch], [pairs[i][1] for i in batch]).to(model.device)
            logits = model(**inputs, logits_to_keep=1, use_cache=False).logits[:, -1].double()
            scores[batch] = torch.sigmoid(logits[:, yes] - logits[:, no]).cpu().numpy()
            progress(len(batch))
    return scores


def encode(processor: ProcessorMixin, prompts: Sequence[list[dict]], documents: Sequence[Document]):
    """Tokens and pixels of a batch of prompts with at most one image each, left-padded."""
    texts = processor.apply_chat_template(list(prompts), add_generation_prompt=True, tokenize=False)
    images = [document.load_image() for document in documents if document.image is not None]
    return processor(text=texts, images=images or None, padding=True, return_tensors="pt")


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


def _text_length(prompt: list[dict]) -> int:
    return sum(len(part.get("text", "")) for part in prompt[0]["content"])
