"""Whether an answer rests on what it cites: asked of the model itself, by scoring the answer and generating nothing.

The answer is scored after the same prompt with evidence masked. *Necessity*: how much less likely it is without what is
cited. *Sufficiency*: how likely it stays with that alone. Each beside a control, where as much of what is not cited is
masked, or kept. The chain itself is not shown again, as it would give the answer away; the model sees which documents
it called helpful, and no more.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import torch
from PIL import Image
from transformers import PreTrainedModel, ProcessorMixin

from lite.models.inputs import encode, opened_tag
from lite.models.merged import merged
from lite.schema import Document, Trace
from lite.stages.answer import Listing
from lite.stages.filter import evaluating
from lite.stages.prompts import HELPS, HELPS_NOT, UNKNOWN, plain
from lite.stages.quotes import says

MASK = "…"
IMAGE_CHARS = 1000  # of text, that an image counts as when as much is to be masked elsewhere
HALVED = math.log(2)  # an answer half as likely without its evidence rests on it
RESTS, WEAK, NOT_FOUND, NOTHING_CITED = "rests on it", "weak", "not found in the cited documents", "cites nothing"


@dataclass(frozen=True)
class Support:
    """What speaks for an answer's resting on what it cites. Log-probabilities are natural, of the whole answer.

    Args:
        verdict: `rests on it`: without it the answer is at most half as likely, and less likely than without as much of
            what is not cited. `not found in the cited documents`: that is not so, and its words do not stand there.
            `weak`: that is not so, but they do, or nobody can tell. `cites nothing`.
        words: Whether the answer's words stand in what is cited; None for yes, no and images, where that tells nothing.
        necessity: By how much the answer's log-probability falls when what is cited is masked.
        uncited_necessity: Likewise, as much of what is not cited; None where everything is.
        sufficiency: By how much it falls when all but what is cited is masked.
        uncited_sufficiency: Likewise, when only what is not cited is left.
    """

    verdict: str
    words: bool | None = None
    necessity: float | None = None
    uncited_necessity: float | None = None
    sufficiency: float | None = None
    uncited_sufficiency: float | None = None


def check_support(
    model: PreTrainedModel, processor: ProcessorMixin, outcome: Trace, listing: Listing, document_chars: int
) -> Support:
    """Does the answer of a trace rest on what it cites?

    Where the chain quotes a cited document, the quotes that were found are its evidence, else the whole document is.

    Args:
        model: With the adapters active that answered.
        processor: Of the same model.
        outcome: The trace.
        listing: What stage 2 was shown, see `shown_in`.
        document_chars: As it was asked.
    """
    if not outcome.cited or outcome.failure or outcome.answer == UNKNOWN:
        return Support(NOTHING_CITED)
    cited = [document for document in listing.documents if document.id in outcome.cited]
    others = [document for document in listing.documents if document.id not in outcome.cited]
    spans = {
        document.id: [(q["start"], q["end"]) for q in outcome.quotes if q["id"] == document.id and q["found"]]
        for document in cited
    }
    variants = {
        "all": {},
        "necessity": {d.id: without_spans(d, spans[d.id]) for d in cited},
        "sufficiency": {d.id: masked(d) for d in others} | {d.id: only_spans(d, spans[d.id]) for d in cited},
    }
    if others:
        amount = sum(_size(d, spans[d.id]) for d in cited)
        by_score = [listing.documents[number - 1] for number in listing.stage1_order]
        variants["uncited_necessity"] = _mask_as_much([d for d in by_score if d in others], amount)
        variants["uncited_sufficiency"] = {d.id: masked(d) for d in cited}
    said = _verdicts(listing, outcome.cited)
    found = {}
    with evaluating(model), merged(model):
        for name, changed in variants.items():
            shown = replace(listing, documents=tuple(changed.get(d.id, d) for d in listing.documents))
            found[name] = _log_probability(model, processor, shown, said, outcome.answer, document_chars)
    falls = {name: found["all"] - value for name, value in found.items() if name != "all"}
    words = answer_in(outcome.answer, cited)
    rests = falls["necessity"] >= HALVED and falls["necessity"] > falls.get("uncited_necessity", -math.inf)
    verdict = RESTS if rests else NOT_FOUND if words is False else WEAK
    return Support(verdict, words, **falls)


@torch.inference_mode()
def _log_probability(
    model: PreTrainedModel, processor: ProcessorMixin, listing: Listing, said: str, answer: str, document_chars: int
) -> float:
    """Log-probability of an answer's tokens, after the prompt and what is said before them."""
    tokenizer = processor.tokenizer
    inputs = encode(processor, [listing.prompt(document_chars)], listing.documents).to(model.device)
    before, after = (
        tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"].to(model.device)
        for text in (said.removeprefix(opened_tag(processor)), plain(answer))
    )
    prompt = inputs["input_ids"]
    ids = torch.cat([prompt, before, after], dim=1)
    for name, value in inputs.items():
        if torch.is_tensor(value) and value.shape == prompt.shape:  # a mask, and which tokens are of images
            filling = torch.full_like(ids[:, prompt.shape[1] :], int(name == "attention_mask"), dtype=value.dtype)
            inputs[name] = torch.cat([value, filling], dim=1)
    inputs["input_ids"] = ids
    kept = after.shape[1] + 1
    logits = model(**inputs, logits_to_keep=kept, use_cache=False).logits[0, -kept:-1]
    return float(logits.float().log_softmax(-1).gather(-1, after[0].unsqueeze(-1)).sum())


def answer_in(answer: str, documents: Sequence[Document]) -> bool | None:
    """Whether an answer's words stand in a document; None for yes and no, and where an image may hold them."""
    if answer.strip().strip(".").lower() in ("yes", "no"):
        return None
    if any(says(f"{document.title}\n{document.text}", answer) for document in documents):
        return True
    return None if any(document.image is not None for document in documents) else False


def masked(document: Document) -> Document:
    """The document with nothing left to see."""
    image = None if document.image is None else _blank_like(document)
    return replace(document, title=MASK, text=MASK if document.text else "", image=image)


def without_spans(document: Document, spans: Sequence[tuple[int, int]]) -> Document:
    """The document less some stretches of its text; all of it where none are given."""
    if not spans:
        return masked(document)
    text = document.text
    for start, end in sorted(spans, reverse=True):
        text = text[:start] + MASK + text[end:]
    image = None if document.image is None else _blank_like(document)  # a page shows its text, too
    return replace(document, text=text, image=image)


def only_spans(document: Document, spans: Sequence[tuple[int, int]]) -> Document:
    """The document with some stretches of its text alone; all of it where none are given."""
    if not spans:
        return document
    image = None if document.image is None else _blank_like(document)
    return replace(document, text=MASK.join(document.text[start:end] for start, end in sorted(spans)), image=image)


def _mask_as_much(documents: Sequence[Document], amount: int) -> dict[str, Document]:
    """Documents masked from the one with the highest score, until as much is gone; of the last, the beginning alone."""
    changed: dict[str, Document] = {}
    for document in documents:
        if amount <= 0:
            break
        if document.image is None and amount < len(document.text):
            changed[document.id] = without_spans(document, [(0, amount)])
        else:
            changed[document.id] = masked(document)
        amount -= _size(document, [])
    return changed


def _size(document: Document, spans: Sequence[tuple[int, int]]) -> int:
    if spans:
        return sum(end - start for start, end in spans)
    return len(document.text) + IMAGE_CHARS * (document.image is not None)


def _blank_like(document: Document):
    """A function that gives a grey image of the same size, so that the prompt keeps its length."""
    return lambda: Image.new("RGB", document.load_image().size, "grey")


def _verdicts(listing: Listing, cited: Collection[str]) -> str:
    """A completion up to its answer, which says of each document no more than whether it helps."""
    chain = " ".join(
        f"[{number}] {HELPS if document.id in cited else HELPS_NOT}."
        for number, document in enumerate(listing.documents, start=1)
    )
    number = {document.id: number for number, document in enumerate(listing.documents, start=1)}
    return f"<think>{chain}</think>\n<rank>{' > '.join(f'[{number[i]}]' for i in cited)}</rank>\n<answer>"
