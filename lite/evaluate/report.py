"""Reports of both stages as people read them: Markdown, tables for the terminal, plots."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich import box
from rich.table import Table

from lite.evaluate.figures import FIGURES
from lite.metrics.ranking import Judged
from lite.runs import read_metrics

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FILTER_FIGURES = ("auc", "recall@1", "recall@3", "recall@5", "recall@10", "ndcg@5", "accuracy")
SUPPORT_TOLD = {
    "rests": "rest on it (without it, they are at most half as likely)",
    "necessary": "become less likely without it than without as much that is not cited",
    "sufficient": "stay likelier with it alone than with all but it",
}
FILTER_SYSTEMS = ("chance", "bm25", "base", "trained", "difference")


# ------------------------------------------------------------------------------------------------------------- stage 1


def filter_markdown(report: dict) -> str:
    """`report.md`."""
    lines = [
        "# Stage 1: relevance filter",
        "",
        f"Data: {report['data']}, {report['reported_on']}; seed {report['seed']}; adapter "
        f"`{report['adapter_hash'][:12]}`. Intervals are 95 % bootstrap over questions; differences are paired. AUC is "
        "over all pairs, so it also asks that scores of different questions compare, which BM25's do not. Accuracy "
        "counts Yes where P(relevant) ≥ 0.5.",
        "",
        filter_sentence(report),
        "",
        "## The data set's own pools",
        "",
        *_filter_rows(report),
        "",
        f"## Hard pools of {report['hard_pools']['size']}",
        "",
        "The relevant documents; half of the others are confusable (BM25, similar titles), the rest random.",
        "",
        *_filter_rows(report["hard_pools"]),
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
    lines += [
        "",
        *health_lines(report),
        "![reward](reward.png)",
        "",
        "![ROC](roc.png)",
        "",
        "![scores](scores.png)",
        "",
    ]
    return "\n".join(lines)


def health_lines(report: dict) -> list[str]:
    """How the training went; nothing in reports of versions that did not look at it."""
    if "health" not in report:
        return []
    signs = [f"- {sentence}" for sentence in report["health"]] or ["No sign of a collapse was seen."]
    return ["## How the training went", "", *signs, ""]


def filter_table(part: dict, title: str) -> Table:
    """The figures of all systems; intervals only for the difference, the others' are in `report.md`."""
    table = Table(title=title)
    table.add_column("")
    for system in FILTER_SYSTEMS:
        table.add_column("trained - base" if system == "difference" else system, justify="right")
    for figure in FILTER_FIGURES:
        cells = [cell(_without_interval(part[system].get(figure))) for system in FILTER_SYSTEMS[:-1]]
        table.add_row(figure, *cells, cell(part["difference"][figure], signed=True))
    return table


def _filter_rows(part: dict) -> list[str]:
    rows = ["| | chance | BM25 | base | trained | trained - base | trained - BM25 |", "|---" * 7 + "|"]
    for figure in FILTER_FIGURES:
        systems = (*FILTER_SYSTEMS, "over_bm25")
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


def filter_sentence(report: dict) -> str:
    tuned, test = report["filter"], report["filter_on_test"]
    rule = (
        f"Filter not tuned, for want of dev questions: it keeps the best {tuned['max_kept']} documents. "
        if tuned["tuned_on"] == "nothing"
        else f"Filter tuned on dev: keep P(relevant) ≥ {tuned['threshold']:.3g}, at most {tuned['max_kept']} "
        "documents. "
    )
    return (
        f"{rule}On test it removes {test['share_filtered']:.1%} of the documents and keeps {test['recall_kept']:.1%} "
        "of the relevant ones."
    )


# ------------------------------------------------------------------------------------------------------------- stage 2


def answers_markdown(report: dict, title: str, notes: Sequence[str]) -> str:
    """The report for people."""
    lines = [f"# {title}", "", *notes, "", "## Systems", ""]
    if report["orders"] > 1:
        lines += [f"Figures are means over {report['orders']} orders of the documents.", ""]
    lines += [*_answer_rows(report["systems"]), ""]
    if report["against"]:
        lines += [
            f"## {report['full']}, compared", "",
            f"Paired differences, {report['full']} minus the other; an interval above 0 is a gain.", "",
            *_answer_rows(report["against"], signed=True), "",
        ]  # fmt: skip
    if report.get("evidence", {}).get("questions"):
        lines += ["## Evidence test", "", evidence_sentence(report["evidence"]), ""]
    lines += evidence_lines(report)
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
    if health := health_lines(report):
        lines += ["", *health]
    return "\n".join(lines) + "\n"


def evidence_lines(report: dict) -> list[str]:
    """What is cited and quoted, and whether answers rest on it; nothing in reports of versions that did not look."""
    lines: list[str] = []
    if report.get("citing"):
        names = ("citation_precision", "citation_recall", "quote_precision", "contradicts")
        lines = ["## Citations and quotes", "", f"| | {' | '.join(names)} | quotes |", "|---" * (len(names) + 2) + "|"]
        for system, found in report["citing"].items():
            lines.append(f"| {system} | {' | '.join(cell(found.get(n)) for n in names)} | {found['quotes']} |")
        lines += [
            "", "Of well-formed answers that cite something. Quote precision: quotes that stand in the cited document. "
            "Contradicts: answers whose chain dismisses a document that they cite.", "",
        ]  # fmt: skip
    if report.get("support", {}).get("questions"):
        found = report["support"]
        parts = [f"{cell(found[name])} {told}" for name, told in SUPPORT_TOLD.items() if name in found]
        lines += [f"Of {found['questions']} answers that cite something, {'; '.join(parts)}.", ""]
    return lines


def evidence_sentence(evidence: dict) -> str:
    """What the evidence test found, in a sentence."""
    cited, uncited = evidence["changed_without_cited"], evidence["changed_without_uncited"]
    return (
        f"Without the documents that the chain cites, {cited['value']:.0%} of {evidence['questions']} answers change; "
        f"without as many that it does not cite, {uncited['value']:.0%} (difference {cell(evidence['difference'])})."
    )


def answers_table(report: dict, title: str) -> Table:
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


def _answer_rows(systems: dict[str, dict], signed: bool = False) -> list[str]:
    rows = ["| | " + " | ".join(FIGURES) + " |", "|---" * (len(FIGURES) + 1) + "|"]
    for name, found in systems.items():
        rows.append(f"| {name} | " + " | ".join(cell(found[figure], signed) for figure in FIGURES) + " |")
    return rows


# --------------------------------------------------------------------------------------------------------------- plots


def plot_rewards(folder: Path) -> None:
    """The curves of the total reward and of every term, from `metrics.jsonl` to `reward.png`."""
    rows = read_metrics(folder / "metrics.jsonl")
    if not rows:
        return
    figure, axes = _new_plot((6, 3.5))
    terms = [key for key in rows[0] if key.startswith("rewards/") and key.endswith("/mean")]
    for key, name in (("reward", "total"), *((key, key.split("/")[1]) for key in terms)):
        axes.plot([row["step"] for row in rows], [row[key] for row in rows], label=name)
    axes.set(xlabel="step", ylabel="mean reward")
    _save_plot(figure, axes, folder / "reward.png")


def plot_roc(runs: dict[str, list[Judged]], path: Path) -> None:
    """ROC curves over all (question, document) pairs."""
    figure, axes = _new_plot((4.5, 4.5))
    for name, questions in runs.items():
        scores = np.concatenate([question.scores for question in questions])
        labels = np.concatenate([question.labels for question in questions])[np.argsort(-scores, kind="stable")]
        axes.plot(np.cumsum(~labels) / (~labels).sum(), np.cumsum(labels) / labels.sum(), label=name)
    axes.plot([0, 1], [0, 1], linestyle=":", color="grey", label="chance")
    axes.set(xlabel="false positive rate", ylabel="true positive rate")
    _save_plot(figure, axes, path)


def plot_scores(questions: list[Judged], threshold: float, path: Path) -> None:
    """Histogram of P(relevant), by label."""
    figure, axes = _new_plot((6, 3.5))
    scores = np.concatenate([question.scores for question in questions])
    labels = np.concatenate([question.labels for question in questions])
    for chosen, name in ((labels, "relevant"), (~labels, "irrelevant")):
        axes.hist(scores[chosen], bins=40, range=(0, 1), density=True, alpha=0.6, label=name)
    axes.axvline(threshold, linestyle="--", color="black", label=f"threshold {threshold:.3g}")
    axes.set(xlabel="P(relevant)", ylabel="density")
    _save_plot(figure, axes, path)


def _new_plot(inches: tuple[float, float]) -> tuple[Figure, Axes]:
    # Without pyplot, which holds state and picks a window system.
    from matplotlib.figure import Figure

    figure = Figure(figsize=inches)
    return figure, figure.add_subplot()


def _save_plot(figure: Figure, axes: Axes, path: Path) -> None:
    axes.legend()
    axes.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
