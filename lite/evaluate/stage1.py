"""A split in, a report out: JSON for programs, Markdown and plots for people, a table for the terminal."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib
import numpy as np
from peft import PeftModel
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from transformers import ProcessorMixin

from lite.data.pools import Corpus, hard_pool
from lite.data.problems import Problems
from lite.data.sources import load_report_examples
from lite.files import write_text
from lite.metrics.ranking import Judged, chance, compare, filter_quality, summarise, tune_filter
from lite.models.adapters import adapter_hash
from lite.runs import read_metrics
from lite.schema import Example
from lite.stages.filter import score

if TYPE_CHECKING:
    from lite.train.stage1 import Stage1Config

matplotlib.use("Agg")
import matplotlib.pyplot as plt

FIGURES = ("auc", "recall@1", "recall@3", "recall@5", "recall@10", "ndcg@5", "accuracy")
SYSTEMS = ("chance", "bm25", "base", "trained", "difference")


def stage1_report(
    model: PeftModel, processor: ProcessorMixin, config: Stage1Config, folder: Path, console: Console
) -> dict:
    """Tune the filter on dev, compare base and trained filter on test, write `report.json`, `report.md` and plots.

    Returns:
        The report, as in `report.json`.
    """
    limit = min(config.limit or config.report_questions, config.report_questions)
    dev, test, documents = load_report_examples([config.data], limit, Problems(config.skip_broken))
    corpus = Corpus(documents)
    hard = [hard_pool(example, corpus, config.hard_pool_size) for example in test]

    pairs = sum(len(example.documents) for example in [*dev, *test, *test, *hard, *hard])
    console.print(f"Scoring {pairs} pairs of a question and a document for the report.", highlight=False)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("scoring dev and test", total=pairs)

        def judge(examples: Sequence[Example]) -> list[Judged]:
            flat = [(example.question, document) for example in examples for document in example.documents]
            scores = score(
                model, processor, flat, config.document_chars, config.per_device_eval_batch_size,
                lambda done: progress.advance(task, done),
            )  # fmt: skip
            return judged(examples, scores)

        tuned = tune_filter(judge(dev), config.min_recall)
        trained, trained_hard = judge(test), judge(hard)
        with model.disable_adapter():
            base, base_hard = judge(test), judge(hard)

    lexical, lexical_hard = bm25(test, corpus), bm25(hard, corpus)
    kinds = {example.category: None for example in test}
    hops = {
        "one document": [i for i, example in enumerate(test) if len(example.relevant) == 1],
        "two documents": [i for i, example in enumerate(test) if len(example.relevant) > 1],
    }
    subsets = hops | {kind: [i for i, e in enumerate(test) if e.category == kind] for kind in kinds}
    report = {
        "stage": "stage1",
        "data": config.data,
        "questions": {"dev": len(dev), "test": len(test)},
        "reported_on": reported_on(test),
        "seed": config.seed,
        "adapter_hash": adapter_hash(folder / "adapter"),
        "filter": {key: tuned[key] for key in ("threshold", "max_kept")} | {"tuned_on": "dev"},
        "filter_on_dev": {key: tuned[key] for key in ("recall_kept", "share_filtered")},
        "filter_on_test": filter_quality(trained, tuned["threshold"], int(tuned["max_kept"])),
        **side_by_side(base, trained, lexical),
        "hard_pools": side_by_side(base_hard, trained_hard, lexical_hard) | {"size": config.hard_pool_size},
        "by_kind": {
            name: {"questions": len(chosen)}
            | side_by_side(*([run[i] for i in chosen] for run in (base, trained, lexical)))
            for name, chosen in subsets.items()
            if chosen
        },
    }
    write_text(folder / "report.json", json.dumps(report, indent=2) + "\n")
    plot_rewards(folder)
    plot_roc({"base": base, "trained": trained}, folder / "roc.png")
    plot_scores(trained, tuned["threshold"], folder / "scores.png")
    write_text(folder / "report.md", markdown(report))
    console.print(terminal_table(report, f"{report['reported_on']}: the data's own pools"))
    console.print(terminal_table(report["hard_pools"], f"The same with hard pools of {config.hard_pool_size}"))
    console.print(_filter_sentence(report), soft_wrap=True)
    return report


def side_by_side(base: list[Judged], trained: list[Judged], lexical: list[Judged]) -> dict:
    """The figures of every system and the paired differences trained - base and trained - BM25."""
    ranked = [name for name in FIGURES if name != "accuracy"]  # BM25 has no threshold at which it would say Yes
    return {
        "base": summarise(base),
        "trained": summarise(trained),
        "difference": compare(trained, base),
        "bm25": {name: figure for name, figure in summarise(lexical).items() if name in ranked},
        "over_bm25": {name: figure for name, figure in compare(trained, lexical).items() if name in ranked},
        "chance": chance(trained),
    }


def reported_on(examples: Sequence[Example]) -> str:
    """Which questions a report is on, such as `239 questions of test`."""
    counts = Counter(example.split for example in examples)
    parts = [f"{counts[split]} questions of {split}" for split in sorted(counts)]
    return " and ".join(parts) + ("" if set(counts) == {"test"} else ", none of which tuned the threshold")


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


def markdown(report: dict) -> str:
    """`report.md`."""
    lines = [
        "# Stage 1: relevance filter",
        "",
        f"Data: {report['data']}, {report['reported_on']}; seed {report['seed']}; adapter "
        f"`{report['adapter_hash'][:12]}`. Intervals are 95 % bootstrap over questions; differences are paired. AUC is "
        "over all pairs, so it also asks that scores of different questions compare, which BM25's do not. Accuracy "
        "counts Yes where P(relevant) ≥ 0.5.",
        "",
        _filter_sentence(report),
        "",
        "## The data set's own pools",
        "",
        *_markdown_table(report),
        "",
        f"## Hard pools of {report['hard_pools']['size']}",
        "",
        "The relevant documents; half of the others are confusable (BM25, similar titles), the rest random.",
        "",
        *_markdown_table(report["hard_pools"]),
        "",
        "## By kind of question",
        "",
        "A point-wise filter sees one document at a time: of a question that needs two, it can only guess the second.",
        "",
        "| kind | questions | AUC base | AUC trained | recall@5 base | recall@5 trained | recall@5 BM25 |",
        "|---|---|---|---|---|---|---|",
    ]
    for kind, part in report["by_kind"].items():
        cells = [part[system][figure] for figure in ("auc", "recall@5") for system in ("base", "trained")]
        cells.append(part["bm25"]["recall@5"])
        lines.append(f"| {kind} | {part['questions']} | " + " | ".join(cell(value) for value in cells) + " |")
    lines += ["", "![reward](reward.png)", "", "![ROC](roc.png)", "", "![scores](scores.png)", ""]
    return "\n".join(lines)


def terminal_table(part: dict, title: str) -> Table:
    """The figures of all systems; intervals only for the difference, the others' are in `report.md`."""
    table = Table(title=title)
    table.add_column("")
    for system in SYSTEMS:
        table.add_column("trained - base" if system == "difference" else system, justify="right")
    for figure in FIGURES:
        cells = [cell(_without_interval(part[system].get(figure))) for system in SYSTEMS[:-1]]
        table.add_row(figure, *cells, cell(part["difference"][figure], signed=True))
    return table


def _markdown_table(part: dict) -> list[str]:
    rows = ["| | chance | BM25 | base | trained | trained - base | trained - BM25 |", "|---" * 7 + "|"]
    for figure in FIGURES:
        systems = (*SYSTEMS, "over_bm25")
        cells = (cell(part[system].get(figure), system in ("difference", "over_bm25")) for system in systems)
        rows.append(f"| {figure} | " + " | ".join(cells) + " |")
    return rows


def cell(figure: dict | None, signed: bool = False) -> str:
    """A figure with its interval, for a table."""
    if figure is None:
        return "–"
    value = f"{figure['value']:+.3f}" if signed else f"{figure['value']:.3f}"
    return f"{value} ({figure['low']:.3f}–{figure['high']:.3f})" if "low" in figure else value


def _without_interval(figure: dict | None) -> dict | None:
    return figure and {"value": figure["value"]}


def _filter_sentence(report: dict) -> str:
    tuned, test = report["filter"], report["filter_on_test"]
    return (
        f"Filter tuned on dev: keep P(relevant) ≥ {tuned['threshold']:.3g}, at most {tuned['max_kept']} documents. "
        f"On test it removes {test['share_filtered']:.1%} of the documents and keeps {test['recall_kept']:.1%} "
        "of the relevant ones."
    )


def plot_rewards(folder: Path) -> None:
    """The reward curve from `metrics.jsonl`."""
    rows = read_metrics(folder / "metrics.jsonl")
    figure, axes = plt.subplots(figsize=(6, 3.5))
    for key, name in (("reward", "total"), ("rewards/label/mean", "label"), ("rewards/format/mean", "format")):
        axes.plot([row["step"] for row in rows], [row[key] for row in rows], label=name)
    axes.set(xlabel="step", ylabel="mean reward")
    save_plot(figure, axes, folder / "reward.png")


def plot_roc(runs: dict[str, list[Judged]], path: Path) -> None:
    """ROC curves over all (question, document) pairs."""
    figure, axes = plt.subplots(figsize=(4.5, 4.5))
    for name, questions in runs.items():
        scores = np.concatenate([question.scores for question in questions])
        labels = np.concatenate([question.labels for question in questions])[np.argsort(-scores, kind="stable")]
        axes.plot(np.cumsum(~labels) / (~labels).sum(), np.cumsum(labels) / labels.sum(), label=name)
    axes.plot([0, 1], [0, 1], linestyle=":", color="grey", label="chance")
    axes.set(xlabel="false positive rate", ylabel="true positive rate")
    save_plot(figure, axes, path)


def plot_scores(questions: list[Judged], threshold: float, path: Path) -> None:
    """Histogram of P(relevant), by label."""
    figure, axes = plt.subplots(figsize=(6, 3.5))
    scores = np.concatenate([question.scores for question in questions])
    labels = np.concatenate([question.labels for question in questions])
    for chosen, name in ((labels, "relevant"), (~labels, "irrelevant")):
        axes.hist(scores[chosen], bins=40, range=(0, 1), density=True, alpha=0.6, label=name)
    axes.axvline(threshold, linestyle="--", color="black", label=f"threshold {threshold:.3g}")
    axes.set(xlabel="P(relevant)", ylabel="density")
    save_plot(figure, axes, path)


def save_plot(figure: plt.Figure, axes: plt.Axes, path: Path) -> None:
    """Write a plot with legend and grid, and forget it."""
    axes.legend()
    axes.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)
