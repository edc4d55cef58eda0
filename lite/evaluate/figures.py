"""The figures of answers: of one, of a system with intervals, of what an answer rests on."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from lite.metrics import bootstrap
from lite.metrics.answers import answer_figures, answer_score, normalise
from lite.metrics.ranking import ndcg, set_f1
from lite.schema import Example, Trace
from lite.stages.answer import Listing, shown_in, trace, without
from lite.stages.prompts import DISMISSAL, UNKNOWN
from lite.stages.quotes import passages
from lite.stages.support import RESTS, Support

SUPPORT_QUESTIONS = 100  # each is scored five times
FIGURES = ("format", "ndcg@5", "recall@1", "recall@3", "recall@5", "source_f1", "exact_match", "f1", "answer")


def reported_on(examples: Sequence[Example]) -> str:
    """Which questions a report is on, such as `239 questions of test`."""
    counts = Counter(example.split for example in examples)
    parts = [f"{counts[split]} questions of {split}" for split in sorted(counts)]
    return " and ".join(parts) + ("" if set(counts) == {"test"} else ", none of which tuned the threshold")


def report_systems(
    examples: Sequence[Example], systems: dict[str, Sequence[Sequence[Trace]]], full: str, baseline: str
) -> dict:
    """The report's objects: `systems`, `difference` (full - baseline), `against` (full - every other), `by_kind`.

    A question's figures are means over the orders that its documents were shown in; intervals are over questions.

    Args:
        systems: Of each system the traces of every order, on the same examples.
        full, baseline: Names of two of them.
    """
    rows = {
        name: [over_orders(*asked) for asked in zip(examples, *found, strict=True)] for name, found in systems.items()
    }
    failures = Counter(outcome.failure for traces in systems[full] for outcome in traces if outcome.failure)
    return {
        "questions": len(examples),
        "systems": {name: summarise(found) for name, found in rows.items()},
        "difference": summarise(rows[full], rows[baseline]),
        "against": {name: summarise(rows[full], found) for name, found in rows.items() if name != full},
        "by_kind": {
            kind: {
                "questions": len(chosen),
                **{name: summarise([found[i] for i in chosen]) for name, found in rows.items()},
            }
            for kind, chosen in subsets(examples).items()
        },
        "orders": len(systems[full]),
        "format_failures": dict(failures),
    }


def figures(example: Example, outcome: Trace) -> dict[str, float]:
    """All figures of one answered question, each in [0, 1].

    `answer` is the data set's own metric. Documents that stage 2 did not see follow behind its ranking, in the order
    of `retrieved`.
    """
    order = [*outcome.ranking, *(i for i in outcome.retrieved if i not in outcome.ranking)]
    hits = [i in example.relevant for i in order]
    exact, f1 = answer_figures(example.metric, outcome.answer, example.answers)
    return {
        "format": float(outcome.format_ok),
        "ndcg@5": ndcg(order, example.relevant, 5),
        **{f"recall@{k}": sum(hits[:k]) / len(example.relevant) for k in (1, 3, 5)},
        "source_f1": set_f1(outcome.cited, sorted(example.relevant)),
        "exact_match": exact,
        "f1": f1,
        "answer": answer_score(example.metric, outcome.answer, example.answers, example.keywords, example.category),
    }


def over_orders(example: Example, *traces: Trace) -> dict[str, float]:
    """The mean figures of a question that was answered with its documents in several orders."""
    rows = [figures(example, outcome) for outcome in traces]
    return {name: sum(row[name] for row in rows) / len(rows) for name in FIGURES}


def summarise(rows: Sequence[dict[str, float]], baseline: Sequence[dict[str, float]] | None = None) -> dict:
    """Mean of every figure with its interval; with a `baseline` on the same questions, of the paired difference."""
    return {
        name: bootstrap.mean(
            [row[name] for row in rows]
            if baseline is None
            else [row[name] - other[name] for row, other in zip(rows, baseline, strict=True)]
        )
        for name in FIGURES
    }


def subsets(examples: Sequence[Example]) -> dict[str, list[int]]:
    """Indices of the questions by number of documents needed, by modality of these, and by category."""
    parts = {
        "one document": [i for i, example in enumerate(examples) if len(example.relevant) == 1],
        "two or more documents": [i for i, example in enumerate(examples) if len(example.relevant) > 1],
    }
    for modality in sorted({modality_of(example) for example in examples}):
        parts[f"on {modality}"] = [i for i, example in enumerate(examples) if modality_of(example) == modality]
    for category in dict.fromkeys(example.category for example in examples):
        parts[category] = [i for i, example in enumerate(examples) if example.category == category]
    return {name: chosen for name, chosen in parts.items() if chosen}


def modality_of(example: Example) -> str:
    """The kinds of the relevant documents: `text`, `image+table`, ..."""
    return "+".join(sorted({d.kind for d in example.documents if d.id in example.relevant})) or "no document"


def evidence_test(
    traces: Sequence[Trace],
    ask: Callable[[list[Listing]], list[str]],
    examples: Sequence[Example],
    quotes: bool = False,
) -> dict:
    """Does the answer rest on what the chain cites?

    Each question is asked again without the cited documents, and without as many uncited ones drawn at random; what is
    left keeps its order. A chain that is what the answer rests on loses its answer with the former only.

    Returns:
        Shares of answers that change, with intervals, over the well-formed traces that cite something and leave at
        least as many uncited; `difference` is paired.
    """
    without_cited, without_uncited, before = [], [], []
    for outcome, example in zip(traces, examples, strict=True):
        uncited = [i for i in outcome.kept if i not in outcome.cited]
        if not (outcome.format_ok and 0 < len(outcome.cited) <= len(uncited)):
            continue
        whole = shown_in(outcome, {document.id: document for document in example.documents}, quotes)
        removed = random.Random(outcome.question).sample(uncited, len(outcome.cited))
        without_cited.append(without(whole, outcome.cited))
        without_uncited.append(without(whole, removed))
        before.append(normalise(outcome.answer))
    if not before:
        return {"questions": 0}
    changed = {
        name: np.array(
            [normalise(answer_of(*asked)) != b for *asked, b in zip(parts, ask(parts), before, strict=True)], float
        )
        for name, parts in (("cited", without_cited), ("uncited", without_uncited))
    }
    return {
        "questions": len(before),
        "changed_without_cited": bootstrap.mean(changed["cited"]),
        "changed_without_uncited": bootstrap.mean(changed["uncited"]),
        "difference": bootstrap.mean(changed["cited"] - changed["uncited"]),
    }


def citing(examples: Sequence[Example], traces: Sequence[Trace]) -> dict:
    """What a system cites and quotes, with intervals over questions.

    Returns:
        `citation_precision` and `citation_recall` of the cited documents against the relevant ones; `quote_precision`,
        the share of quotes that stand in the document that is cited with them; `contradicts`, the share of answers
        whose chain dismisses a document that they cite. Each over the well-formed answers that cite, or quote,
        something; left out where there are none. `quotes` is how many there are.
    """
    rows: dict[str, list[float]] = {
        name: [] for name in ("citation_precision", "citation_recall", "quote_precision", "contradicts")
    }
    for example, outcome in zip(examples, traces, strict=True):
        if outcome.failure or not outcome.cited:
            continue
        right = len(example.relevant.intersection(outcome.cited))
        rows["citation_precision"].append(right / len(outcome.cited))
        rows["citation_recall"].append(right / max(1, len(example.relevant)))
        numbers = {outcome.shown.index(i) + 1 for i in outcome.cited}
        rows["contradicts"].append(
            float(
                any(
                    numbers.intersection(passage.numbers) and DISMISSAL.search(passage.text)
                    for passage in passages(outcome.reasoning)
                )
            )
        )
        if outcome.quotes:
            rows["quote_precision"].append(sum(quote["found"] for quote in outcome.quotes) / len(outcome.quotes))
    found = {name: bootstrap.mean(values) for name, values in rows.items() if values}
    return {"quotes": sum(len(outcome.quotes) for outcome in traces)} | found


def supported(
    traces: Sequence[Trace], check: Callable[[Trace, Listing], Support], examples: Sequence[Example], quotes: bool
) -> dict:
    """Whether answers rest on what they cite, see `lite.stages.support`, over the first `SUPPORT_QUESTIONS` that cite.

    Returns:
        `questions`; shares with intervals: `rests` of all of them, and of those that leave a document uncited
        `necessary`, that masking what is cited lowers the answer more than masking as much that is not, and
        `sufficient`, that what is cited alone keeps the answer likelier than the rest alone does.
    """
    found = []
    for outcome, example in zip(traces, examples, strict=True):
        if outcome.format_ok and outcome.cited and outcome.answer != UNKNOWN and len(found) < SUPPORT_QUESTIONS:
            documents = {document.id: document for document in example.documents}
            found.append(check(outcome, shown_in(outcome, documents, quotes)))
    if not found:
        return {"questions": 0}
    with_control = [s for s in found if s.uncited_necessity is not None]
    shares = {
        "rests": [s.verdict == RESTS for s in found],
        "necessary": [s.necessity > s.uncited_necessity for s in with_control],
        "sufficient": [s.sufficiency < s.uncited_sufficiency for s in with_control],
    }
    return {"questions": len(found)} | {
        name: bootstrap.mean([float(value) for value in values]) for name, values in shares.items() if values
    }


def answer_of(listing: Listing, completion: str) -> str:
    """The answer in a completion, or all of it where it is malformed."""
    return trace(listing, completion, listing.documents).answer
