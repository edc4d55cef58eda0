"""What filters judge: P(relevant) and BM25 of every document of each question's pool."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from peft import PeftModel
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from transformers import ProcessorMixin

from lite.data.pools import Corpus
from lite.evaluate.pace import tell_pace
from lite.metrics.ranking import Judged
from lite.models.adapters import active
from lite.runs import STAGE1
from lite.schema import Example
from lite.stages.filter import score


def stage1_scores(
    model: PeftModel,
    processor: ProcessorMixin,
    examples: Sequence[Example],
    card: dict,
    batch_size: int,
    console: Console,
) -> list[np.ndarray]:
    """P(relevant) of each document of each example's pool, by stage 1's adapter."""
    flat = [(example.question, document) for example in examples for document in example.documents]
    with progress_bar(console) as bar, active(model, [STAGE1]):
        task = bar.add_task("stage 1: scoring documents", total=len(flat))
        pace = tell_pace(console, "Stage 1's scores", len(flat))

        def advance(done: int) -> None:
            bar.advance(task, done)
            pace(done)

        scores = score(model, processor, flat, card["document_chars"], batch_size, advance)
    return by_example(scores, examples)


def lexical_scores(examples: Sequence[Example], corpus: Corpus) -> list[np.ndarray]:
    """BM25 of each document of each example's pool."""
    return [question.scores for question in bm25(examples, corpus)]


def judged(examples: Sequence[Example], scores: np.ndarray) -> list[Judged]:
    """Cut flat scores into questions."""
    return [
        Judged(part, np.array([document.id in example.relevant for document in example.documents]))
        for example, part in zip(examples, by_example(scores, examples), strict=True)
    ]


def by_example(scores: np.ndarray, examples: Sequence[Example]) -> list[np.ndarray]:
    """Cut `[all documents]` into one array per example."""
    return np.split(scores, np.cumsum([len(example.documents) for example in examples])[:-1])


def bm25(examples: Sequence[Example], corpus: Corpus) -> list[Judged]:
    """BM25 over title and text, within each question's pool; term statistics are those of the whole corpus."""
    scores = []
    for example in examples:
        of_corpus = corpus.bm25_scores(example.question)
        scores.extend(of_corpus[corpus.position[document.id]] for document in example.documents)
    return judged(examples, np.array(scores))


def progress_bar(console: Console) -> Progress:
    """A bar with counts and the time that is left; nothing where there is no terminal."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
