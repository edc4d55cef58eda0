"""Whole answers over a split: systems side by side, what the chain rests on, predictions that survive a stop."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from peft import PeftModel
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from transformers import ProcessorMixin

from lite.data.pools import Corpus
from lite.evaluate.stage1 import bm25, by_example, cell, save_plot
from lite.evaluate.stage1 import plt as plots
from lite.files import write_text
from lite.metrics import bootstrap
from lite.metrics.answers import answer_figures, answer_score, normalise
from lite.metrics.ranking import ndcg
from lite.models.adapters import active
from lite.runs import STAGE1, read_metrics
from lite.schema import Example, LiteError, Trace
from lite.stages.answer import NOTHING_FOUND, Listing, arrange, select, shown_in, trace, without
from lite.stages.filter import score
from lite.train.rewards import set_f1

FIGURES = ("format", "ndcg@5", "recall@1", "recall@3", "recall@5", "source_f1", "exact_match", "f1", "answer")


@dataclass(frozen=True)
class Budget:
    """How much stage 2 sees and says.

    Args:
        threshold, max_kept: Stage 1's filter; -inf keeps everything.
        max_documents: In a prompt.
        document_chars: Of each text in the prompt.
        max_new_tokens: Of a completion.
        batch_size: Prompts at once.
    """

    threshold: float
    max_kept: int
    max_documents: int
    document_chars: int
    max_new_tokens: int
    batch_size: int


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
        scores = score(model, processor, flat, card["document_chars"], batch_size, lambda done: bar.advance(task, done))
    return by_example(scores, examples)


def lexical_scores(examples: Sequence[Example], corpus: Corpus) -> list[np.ndarray]:
    """BM25 of each document of each example's pool."""
    return [question.scores for question in bm25(examples, corpus)]


def answer_examples(
    ask: Callable[..., list[str]],
    examples: Sequence[Example],
    scores: Sequence[np.ndarray],
    budget: Budget,
    path: Path | None,
    console: Console,
    name: str = "stage 2",
    order: int = 0,
) -> list[Trace]:
    """Filter, rank and answer every example.

    Args:
        ask: What says the completions: `partial(say, model, processor)` with the adapters active, or takes the same.
        scores: By which documents are kept and ordered, per example `[documents]`.
        path: Traces are appended here as they come, `{"id", "trace"}` a line; what it holds is not asked again.
        order: Which of the shuffled orders of its documents a prompt shows, see `arrange`.

    Returns:
        One trace per example, in their order.
    """
    found = read_predictions(path) if path else {}
    missing = [i for i, example in enumerate(examples) if example.id not in found]
    listings, dropped = {}, {}
    for i in missing:
        kept, over = select(scores[i], budget.threshold, budget.max_kept, budget.max_documents)
        documents = examples[i].documents
        listings[i] = arrange(examples[i].question, [documents[j] for j in kept], order)
        dropped[i] = [documents[j] for j in over]

    with progress_bar(console) as bar:
        task = bar.add_task(f"{name}: answering", total=len(missing))

        def keep_trace(i: int, text: str) -> None:
            example = examples[i]
            order = np.argsort(-scores[i], kind="stable")
            pool = [example.documents[j] for j in order]
            found[example.id] = trace(listings[i], text, pool, scores[i][order], dropped[i])
            if path:
                with path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps({"id": example.id, "trace": json.loads(found[example.id].to_json())}) + "\n")
            bar.advance(task)

        for i in missing:
            if not listings[i].documents:
                keep_trace(i, NOTHING_FOUND)
        asked = [i for i in missing if listings[i].documents]
        ask(
            [listings[i] for i in asked], budget.document_chars, budget.max_new_tokens, budget.batch_size,
            lambda places, texts: [keep_trace(asked[p], text) for p, text in zip(places, texts, strict=True)],
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


# ------------------------------------------------------------------------------------------------------------- figures


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
    return "+".join(sorted({d.kind for d in example.documents if d.id in example.relevant})) or "nothing at hand"


def evidence_test(
    traces: Sequence[Trace], ask: Callable[[list[Listing]], list[str]], examples: Sequence[Example]
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
        whole = shown_in(outcome, {document.id: document for document in example.documents})
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


def answer_of(listing: Listing, completion: str) -> str:
    """The answer in a completion, or all of it where it is malformed."""
    return trace(listing, completion, listing.documents).answer


# ------------------------------------------------------------------------------------------------------------- reports


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


def markdown(report: dict, title: str, notes: Sequence[str]) -> str:
    """The report for people."""
    lines = [f"# {title}", "", *notes, "", "## Systems", ""]
    if report["orders"] > 1:
        lines += [f"Figures are means over {report['orders']} orders of the documents.", ""]
    lines += [*_table(report["systems"]), ""]
    if report["against"]:
        lines += [
            f"## {report['full']}, compared", "",
            f"Paired differences, {report['full']} minus the other; an interval above 0 is a gain.", "",
            *_table(report["against"], signed=True), "",
        ]  # fmt: skip
    if report.get("evidence", {}).get("questions"):
        lines += ["## Evidence test", "", evidence_sentence(report["evidence"]), ""]
    columns = ("format", "ndcg@5", "source_f1", "exact_match", "f1", "answer")
    lines += ["## By kind of question", "", f"| kind | questions | system | {' | '.join(columns)} |"]
    lines.append("|---" * (3 + len(columns)) + "|")
    for kind, part in report["by_kind"].items():
        for name in report["systems"]:
            cells = [cell(part[name][figure]) for figure in columns]
            lines.append(f"| {kind} | {part['questions']} | {name} | " + " | ".join(cells) + " |")
    if report["format_failures"]:
        listed = ", ".join(f"{reason}: {count}" for reason, count in sorted(report["format_failures"].items()))
        lines += ["", f"Malformed outputs of {report['full']}: {listed}."]
    return "\n".join(lines) + "\n"


def evidence_sentence(evidence: dict) -> str:
    """What the evidence test found, in a sentence."""
    cited, uncited = evidence["changed_without_cited"], evidence["changed_without_uncited"]
    return (
        f"Without the documents that the chain cites, {cited['value']:.0%} of {evidence['questions']} answers change; "
        f"without as many that it does not cite, {uncited['value']:.0%} (difference {cell(evidence['difference'])})."
    )


def terminal_table(report: dict, title: str) -> Table:
    """The main figures of the systems, one below the other, in 80 columns; all figures are in `report.md`."""
    shown = ("format", "ndcg@5", "source_f1", "exact_match", "f1", "answer")
    if report["orders"] > 1:
        title += f", each with its documents in {report['orders']} orders"
    table = Table(title=title, box=box.SIMPLE, pad_edge=False, collapse_padding=True)
    table.add_column("")
    for figure in shown:
        table.add_column(figure.replace("_", "\n"), justify="right", no_wrap=True)
    for name, found in report["systems"].items():
        table.add_row(name, *(f"{found[figure]['value']:.3f}" for figure in shown))
    if report["full"] != report["baseline"]:
        gains = [report["difference"][figure] for figure in shown]
        stars = ["*" if gain["low"] > 0 or gain["high"] < 0 else "" for gain in gains]
        table.add_section()
        table.add_row("its gain", *(f"{gain['value']:+.3f}{star}" for gain, star in zip(gains, stars, strict=True)))
        table.caption = f"gain: {report['full']} - {report['baseline']}; * its 95 % interval excludes 0"
    return table


def plot_terms(folder: Path) -> None:
    """The curve of every reward term from `metrics.jsonl`."""
    rows = read_metrics(folder / "metrics.jsonl")
    if not rows:
        return
    figure, axes = plots.subplots(figsize=(6, 3.5))
    for key in [key for key in rows[0] if key.startswith("rewards/") and key.endswith("/mean")]:
        axes.plot([row["step"] for row in rows], [row[key] for row in rows], label=key.split("/")[1])
    axes.set(xlabel="step", ylabel="mean reward")
    save_plot(figure, axes, folder / "reward.png")


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


def _table(systems: dict[str, dict], signed: bool = False) -> list[str]:
    rows = ["| | " + " | ".join(FIGURES) + " |", "|---" * (len(FIGURES) + 1) + "|"]
    for name, found in systems.items():
        rows.append(f"| {name} | " + " | ".join(cell(found[figure], signed) for figure in FIGURES) + " |")
    return rows
