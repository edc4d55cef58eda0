"""Stage 2: which documents are shown, in which order, what the model generates, and the trace of it all."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from transformers import GenerationConfig, PreTrainedModel, ProcessorMixin, TextIteratorStreamer

from lite.metrics.ranking import keep
from lite.models.inputs import encode, opened_tag, vision_tokens, without_thinking
from lite.models.lookup import lookup_settings
from lite.models.merged import merged
from lite.schema import Document, Trace, described
from lite.stages.filter import evaluating
from lite.stages.lenient import read_stage2
from lite.stages.prompts import UNKNOWN, parse_stage2, stage2_prompt
from lite.stages.quotes import quotes_of

FUSION = 2  # small enough that of 20 documents, the five best hold what either order puts first
BASE, STAGE1_BASE, COLD_START, FULL = "base", "stage 1 + base", "stage 1 + cold start", "stage 1 + stage 2"  # systems
# The output where stage 1 keeps no document: the honest outcome, without asking stage 2.
NOTHING_FOUND = (
    f"<think>No document reaches the threshold of stage 1.</think>\n<rank>none</rank>\n<answer>{UNKNOWN}</answer>"
)


@dataclass(frozen=True)
class Listing:
    """A question and the documents that stage 2 is shown.

    Args:
        question: As asked.
        documents: In the order of the prompt.
        stage1_order: Their numbers (from 1) by falling stage 1 score.
        quotes: Whether the reasoning is to quote them.
    """

    question: str
    documents: tuple[Document, ...]
    stage1_order: tuple[int, ...]
    quotes: bool = False

    def prompt(self, document_chars: int) -> list[dict]:
        """See `stage2_prompt`."""
        return stage2_prompt(self.question, self.documents, document_chars, self.quotes)


def arrange(question: str, best_first: Sequence[Document], seed: int = 0, quotes: bool = False) -> Listing:
    """Shuffle what stage 1 kept, so that nothing can be learned from the place in the prompt.

    The order depends on the question, the documents' ids and `seed` alone: asking again gives the same prompt.
    """
    rng = random.Random(f"{seed} {question} {sorted(document.id for document in best_first)}")
    places = list(range(len(best_first)))
    rng.shuffle(places)  # places[i]: where in best_first the document shown as number i + 1 stands
    order = sorted(range(1, len(places) + 1), key=lambda number: places[number - 1])
    return Listing(question, tuple(best_first[i] for i in places), tuple(order), quotes)


def shown_in(outcome: Trace, documents: Mapping[str, Document], quotes: bool = False) -> Listing:
    """The listing that a trace is of; `documents` by id."""
    order = tuple(outcome.shown.index(i) + 1 for i in outcome.kept)
    return Listing(outcome.question, tuple(documents[i] for i in outcome.shown), order, quotes)


def without(listing: Listing, gone: Collection[str]) -> Listing:
    """The listing less the documents of these ids; the others keep their order and move up."""
    left = [number for number, document in enumerate(listing.documents, start=1) if document.id not in gone]
    order = tuple(left.index(number) + 1 for number in listing.stage1_order if number in left)
    return replace(listing, documents=tuple(listing.documents[number - 1] for number in left), stage1_order=order)


def select(
    scores: np.ndarray,
    threshold: float | None,
    max_kept: int,
    max_documents: int,
    search: Sequence[int] | None = None,
) -> tuple[list[int], list[int]]:
    """What stage 1 passes on to stage 2.

    Args:
        scores: P(relevant) of each document, `[n]`.
        threshold, max_kept: As tuned on dev and stored with the adapter. No threshold: none was tuned, so the best are
            kept, whatever their scores.
        max_documents: Stage 2's budget.
        search: The place of each document in the search's order, from 0. Without a threshold, it counts as much as the
            filter's: an untrained filter alone may drop what search put first.

    Returns:
        Indices that are kept and indices that reach the threshold but that the budget dropped, both best first. Empty
        where nothing reaches the threshold.
    """
    if threshold is None:
        best = scores if search is None else fused(scores, search)
        return keep(best, -np.inf, min(max_kept, max_documents)).tolist(), []
    passed = keep(scores, threshold, max_kept).tolist()
    return passed[:max_documents], passed[max_documents:]


def fused(scores: np.ndarray, search: Sequence[int]) -> np.ndarray:
    """Two orders as one, by reciprocal rank fusion.

    Args:
        scores: P(relevant) of each document, `[n]`.
        search: The place of each in the search's order, from 0.
    """
    by_filter = (scores[None] > scores[:, None]).sum(1)  # equal scores share a place
    return 1 / (FUSION + 1 + by_filter) + 1 / (FUSION + 1 + np.asarray(search))


def say(
    model: PreTrainedModel,
    processor: ProcessorMixin,
    listings: Sequence[Listing],
    document_chars: int,
    max_new_tokens: int,
    batch_size: int = 16,
    done: Callable[[list[int], list[str]], None] = lambda indices, texts: None,
) -> list[str]:
    """The completion of each listing, decoded greedily.

    Args:
        model: With whatever adapters are active.
        processor: Of the same model; pads on the left.
        listings: What to ask.
        document_chars: As in training, see `stage2_prompt`.
        max_new_tokens: Longer completions are cut, and then malformed.
        batch_size: Prompts at once. Prompts of similar length are put together.
        done: Called after each batch with the indices of its listings and their completions.
    """
    prompts = [listing.prompt(document_chars) for listing in listings]
    documents = [listing.documents for listing in listings]
    return complete(model, processor, prompts, documents, max_new_tokens, batch_size, done)


@torch.inference_mode()
def complete(
    model: PreTrainedModel,
    processor: ProcessorMixin,
    prompts: Sequence[list[dict]],
    documents: Sequence[Sequence[Document]],
    max_new_tokens: int,
    batch_size: int = 16,
    done: Callable[[list[int], list[str]], None] = lambda indices, texts: None,
    thinking: bool = True,
) -> list[str]:
    """The completion of each prompt, decoded greedily.

    Args:
        model, processor, max_new_tokens, batch_size, done: As for `say`.
        prompts: Conversations.
        documents: Those that each prompt shows, for their images.
        thinking: As the chat template does by default. A tag that it opens for the model is put before a completion.
            False: the model answers at once.
    """
    template = {} if thinking else without_thinking(processor)
    opened = opened_tag(processor, **template)
    settings = _greedy(model, processor, max_new_tokens)
    alone = _greedy(model, processor, max_new_tokens, alone=True)
    by_length = sorted(range(len(prompts)), key=lambda i: _length(prompts[i]))
    completions = [""] * len(prompts)
    with evaluating(model), merged(model):
        for start in range(0, len(by_length), batch_size):
            batch = by_length[start : start + batch_size]
            shown = [document for i in batch for document in documents[i]]
            inputs = encode(processor, [prompts[i] for i in batch], shown, **template).to(model.device)
            chosen = alone if len(batch) == 1 else settings
            tokens = model.generate(**inputs, generation_config=chosen)[:, inputs["input_ids"].shape[1] :]
            said = [opened + text for text in processor.tokenizer.batch_decode(tokens, skip_special_tokens=True)]
            for i, text in zip(batch, said, strict=True):
                completions[i] = text
            done(batch, said)
    return completions


def say_streaming(
    model: PreTrainedModel, processor: ProcessorMixin, listing: Listing, document_chars: int, max_new_tokens: int
) -> Iterator[str]:
    """The completion of one listing in pieces, as the model says them; joined, they are what `say` returns.

    The model runs in a thread. It stops after the next token when the iterator is closed.

    Args:
        model, processor, document_chars, max_new_tokens: As for `say`.
    """
    prompt = listing.prompt(document_chars)
    inputs = encode(processor, [prompt], listing.documents).to(model.device)
    streamer = TextIteratorStreamer(processor.tokenizer, skip_prompt=True, skip_special_tokens=True)
    settings = _greedy(model, processor, max_new_tokens, alone=True)
    closed = threading.Event()
    failures: list[BaseException] = []

    def stopped(input_ids: torch.Tensor, scores: torch.Tensor, **_) -> torch.Tensor:
        return torch.full((len(input_ids),), closed.is_set(), device=input_ids.device)

    def work() -> None:
        try:
            with torch.inference_mode(), evaluating(model), merged(model):
                model.generate(**inputs, generation_config=settings, streamer=streamer, stopping_criteria=[stopped])
        except BaseException as error:  # raised again where the pieces are read
            failures.append(error)
            streamer.end()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        if opened := opened_tag(processor):
            yield opened
        yield from streamer
    finally:
        closed.set()
        thread.join()
    if failures:
        raise failures[0]


def trace(
    listing: Listing,
    completion: str,
    pool: Sequence[Document],
    scores: Sequence[float] | None = None,
    dropped: Sequence[Document] = (),
    seconds: dict[str, float] | None = None,
    lenient: bool = False,
) -> Trace:
    """What became of a question.

    Args:
        listing: What stage 2 was shown.
        completion: What it said.
        pool: All retrieved documents, in the order of retrieval.
        scores: P(relevant) of each document of `pool`, where stage 1 ran.
        dropped: See `Trace`.
        seconds: See `Trace`.
        lenient: Read an output that is a little off its form, too, see `read_stage2`: for people who ask. Figures of
            reports are of what keeps to the form.
    """
    count = len(listing.documents)
    output, off = read_stage2(completion, count) if lenient else (parse_stage2(completion, count), "")
    ids = [document.id for document in listing.documents]
    return Trace(
        question=listing.question,
        documents=described(pool),
        retrieved=tuple(document.id for document in pool),
        scores={} if scores is None else {d.id: float(score) for d, score in zip(pool, scores, strict=True)},
        kept=tuple(ids[number - 1] for number in listing.stage1_order),
        dropped=tuple(document.id for document in dropped),
        shown=tuple(ids),
        reasoning=output.reasoning,
        cited=tuple(ids[number - 1] for number in output.ranking),
        ranking=tuple(ids[number - 1] for number in final_order(output.ranking, listing.stage1_order)),
        answer=completion.strip() if output.failure else output.answer,
        raw=completion,
        failure=output.failure,
        seconds=seconds or {},
        quotes=tuple(quotes_of(output.reasoning, listing.documents)),
        note=f"The output is a little off its form ({off}) and was read all the same." if off else "",
    )


def final_order(ranked: Sequence[int], stage1_order: Sequence[int]) -> list[int]:
    """The ranked documents first, the others behind them in stage 1's order."""
    return [*ranked, *(number for number in stage1_order if number not in ranked)]


def _greedy(
    model: PreTrainedModel, processor: ProcessorMixin, max_new_tokens: int, alone: bool = False
) -> GenerationConfig:
    """How completions are decoded; `alone`: of one prompt at a time."""
    return GenerationConfig(
        max_new_tokens=max_new_tokens,
        do_sample=False,
        eos_token_id=model.generation_config.eos_token_id,
        pad_token_id=processor.tokenizer.pad_token_id,
        suppress_tokens=vision_tokens(model, processor),
        **(lookup_settings(model) if alone else {}),
    )


def _length(prompt: list[dict]) -> int:
    """Text length, with an image counting as a paragraph."""
    return sum(len(part.get("text", "x" * 300)) for part in prompt[0]["content"])
