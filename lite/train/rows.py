"""The rows that stage 1 trains on, and what both stages check of theirs: images, lengths."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import TypeVar

from datasets import Dataset
from rich.console import Console
from rich.progress import track
from transformers import ProcessorMixin

from lite.config.runs import RunConfig, Stage1Config
from lite.data.images import LazyImage
from lite.data.pools import Corpus, Pair
from lite.data.problems import Problems
from lite.data.sources import is_readable, load_report_examples, load_training_pairs, own_cautions
from lite.models.inputs import image_tokens, joined, rendered
from lite.schema import Document, Example, LiteError, open_image_file, shown_size
from lite.stages.prompts import NO, YES, stage1_prompt

logger = logging.getLogger(__name__)

Row = TypeVar("Row")


def load_pairs(config: Stage1Config) -> list[Pair]:
    """The training pairs of the data set, or of the mix."""
    problems = Problems(config.skip_broken)
    pairs = load_training_pairs(
        config.data, config.data_weights, config.limit, config.hard_share, config.seed, problems
    )
    if config.skip_broken:
        pairs = [pair for pair in pairs if is_readable(pair.document, problems)]
    if problems.messages:
        logger.warning(problems.summary())
    for line in own_cautions(config.data, config.limit, config.skip_broken):
        logger.warning(line)
    return pairs


def load_report_questions(config: RunConfig) -> tuple[list[Example], list[Example], Corpus]:
    """The questions that tune the threshold, those that a report is on, and the documents that BM25 counts words in."""
    limit = min(config.limit or config.report_questions, config.report_questions)
    dev, test, documents = load_report_examples([config.data], limit, Problems(config.skip_broken))
    return dev, test, Corpus(documents)


def check_images(documents: Iterable[Document], console: Console) -> None:
    """Open every image once, so that a broken file ends the run before it starts and not at step 700."""
    with_image = {document.id: document for document in documents if document.image is not None}
    for document in track(with_image.values(), "checking images", console=console, transient=True):
        document.load_image()


def drop_long(rows: Sequence[Row], lengths: Sequence[int], max_prompt_tokens: int) -> list[Row]:
    """Leave out the rows whose prompt is longer than `max_prompt_tokens`, with a count."""
    kept = [row for row, length in zip(rows, lengths, strict=True) if length <= max_prompt_tokens]
    if len(kept) < len(rows):
        logger.warning(
            "%d of %d rows are left out: their prompts exceed max_prompt_tokens (%d).",
            len(rows) - len(kept), len(rows), max_prompt_tokens,
        )  # fmt: skip
    if not kept:
        raise LiteError(
            f"Every prompt exceeds max_prompt_tokens ({max_prompt_tokens}): the shortest has {min(lengths)}. "
            "Raise it, or lower max_pixels or document_chars."
        )
    return kept


def prompt_lengths(
    prompts: Sequence[list[dict]],
    documents: Sequence[Sequence[Document]],
    processor: ProcessorMixin,
    **template: object,
) -> list[int]:
    """Tokens of each prompt as the model will see it, with the images of the documents that it shows.

    Args:
        template: Arguments of the chat template.
    """
    texts = rendered(processor, prompts, **template)
    tokens = [len(ids) for ids in processor.tokenizer(texts, add_special_tokens=False)["input_ids"]]
    added: dict[str, int] = {}
    for i, shown in enumerate(documents):
        for document in shown:
            if document.image is None:
                continue
            if document.id not in added:
                added[document.id] = image_tokens(processor, *_image_size(document))
            tokens[i] += added[document.id]
    return tokens


def _image_size(document: Document) -> tuple[int, int]:
    """(height, width); of a file only the header is read."""
    if isinstance(document.image, LazyImage):
        width, height = document.image.size()
    elif callable(document.image):
        width, height = document.image().size
    else:
        with open_image_file(document.image) as opened:
            width, height = opened.size
    width, height = shown_size(width, height)
    return height, width


def pair_prompts(pairs: Sequence[Pair], document_chars: int) -> tuple[list[list[dict]], list[tuple[Document, ...]]]:
    """The prompts of stage 1 and the document of each."""
    prompts = [stage1_prompt(pair.example.question, pair.document, document_chars) for pair in pairs]
    return prompts, [(pair.document,) for pair in pairs]


def prompt_dataset(pairs: Sequence[Pair], document_chars: int) -> Dataset:
    """The rows that TRL samples from. Images are opened when a batch is drawn."""

    def to_rows(batch: dict[str, list]) -> dict[str, list]:
        drawn = [pairs[i] for i in batch["pair"]]
        # A batch holds every pair as often as there are completions: open its image once.
        with_image = {pair.document.id: pair.document for pair in drawn if pair.document.image is not None}
        images = {i: [document.load_image()] for i, document in with_image.items()}
        return {
            "prompt": [joined(stage1_prompt(pair.example.question, pair.document, document_chars)) for pair in drawn],
            "images": [images.get(pair.document.id, []) for pair in drawn],
            "label": [YES if pair.relevant else NO for pair in drawn],
        }

    return Dataset.from_dict({"pair": range(len(pairs))}).with_transform(to_rows)
