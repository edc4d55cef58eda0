"""Whole answers over a split, in a file that survives a stop."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console

from lite.evaluate.pace import tell_pace
from lite.evaluate.scores import progress_bar
from lite.files import write_text
from lite.schema import Example, LiteError, Trace
from lite.stages.answer import NOTHING_FOUND, arrange, select, trace


@dataclass(frozen=True)
class Budget:
    """How much stage 2 sees and says.

    Args:
        threshold, max_kept: Stage 1's filter; -inf keeps everything.
        max_documents: In a prompt.
        document_chars: Of each text in the prompt.
        max_new_tokens: Of a completion.
        batch_size: Prompts at once.
        quotes: Whether the reasoning is to quote the documents.
    """

    threshold: float
    max_kept: int
    max_documents: int
    document_chars: int
    max_new_tokens: int
    batch_size: int
    quotes: bool = False


def answer_examples(
    ask: Callable[..., list[str]],
    examples: Sequence[Example],
    scores: Sequence[np.ndarray],
    budget: Budget,
    path: Path | None,
    console: Console,
    name: str = "stage 2",
    order: int = 0,
    pace: Callable[[int], None] | None = None,
) -> list[Trace]:
    """Filter, rank and answer every example.

    Args:
        ask: What says the completions: `partial(say, model, processor)` with the adapters active, or takes the same.
        scores: By which documents are kept and ordered, per example `[documents]`.
        path: Traces are appended here as they come, `{"id", "trace"}` a line; what it holds is not asked again.
        order: Which of the shuffled orders of its documents a prompt shows, see `arrange`.
        pace: Of all that is asked, where that is more than this; see `tell_pace`.

    Returns:
        One trace per example, in their order.
    """
    found = read_predictions(path) if path else {}
    missing = [i for i, example in enumerate(examples) if example.id not in found]
    listings, dropped = {}, {}
    for i in missing:
        kept, over = select(scores[i], budget.threshold, budget.max_kept, budget.max_documents)
        documents = examples[i].documents
        listings[i] = arrange(examples[i].question, [documents[j] for j in kept], order, budget.quotes)
        dropped[i] = [documents[j] for j in over]

    with progress_bar(console) as bar:
        task = bar.add_task(f"{name}: answering", total=len(missing))
        pace = pace or tell_pace(console, "Answers", len(missing))

        def keep_trace(i: int, text: str) -> None:
            example = examples[i]
            order = np.argsort(-scores[i], kind="stable")
            pool = [example.documents[j] for j in order]
            found[example.id] = trace(listings[i], text, pool, scores[i][order], dropped[i])
            if path:
                with path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps({"id": example.id, "trace": json.loads(found[example.id].to_json())}) + "\n")
            bar.advance(task)

        def keep_batch(places: Sequence[int], texts: Sequence[str]) -> None:
            for place, text in zip(places, texts, strict=True):
                keep_trace(asked[place], text)
            pace(len(texts))

        for i in missing:
            if not listings[i].documents:
                keep_trace(i, NOTHING_FOUND)
        asked = [i for i in missing if listings[i].documents]
        ask(
            [listings[i] for i in asked], budget.document_chars, budget.max_new_tokens, budget.batch_size,
            keep_batch,
        )  # fmt: skip
    return [found[example.id] for example in examples]


def predictions_path(run: Path, system: str, order: int) -> Path:
    """Where a run keeps what a system said of the questions with their documents in one order."""
    return run / "predictions" / (f"{system}, order {order + 1}.jsonl" if order else f"{system}.jsonl")


def read_predictions(path: Path) -> dict[str, Trace]:
    """The traces of an earlier, perhaps stopped, run by example id. A last line that a kill cut short is dropped."""
    if not path.exists():
        return {}
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    found = {}
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
            found[row["id"]] = Trace.from_json(json.dumps(row["trace"]))
        except (ValueError, KeyError, TypeError, RecursionError, LiteError) as error:
            if number < len(lines):
                raise LiteError(f"{path}, line {number} is damaged ({error}). Remove the line or the file.") from error
            write_text(path, "".join(f"{whole}\n" for whole in lines[:-1]))
    return found
