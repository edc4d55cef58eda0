"""The report on a filter: tuned on dev, compared on test with the base model, with BM25 and with chance."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from peft import PeftModel
from rich.console import Console
from transformers import ProcessorMixin

from lite.data.pools import Corpus, hard_pool
from lite.data.sizes import FEW_TO_TUNE
from lite.evaluate.figures import reported_on
from lite.evaluate.pace import tell_pace
from lite.evaluate.report import (
    FILTER_FIGURES,
    filter_markdown,
    filter_sentence,
    filter_table,
    plot_rewards,
    plot_roc,
    plot_scores,
)
from lite.evaluate.scores import bm25, judged, progress_bar
from lite.files import write_text
from lite.metrics.ranking import Judged, chance, compare, filter_quality, fixed_filter, summarise, tune_filter
from lite.models.adapters import adapter_hash
from lite.schema import Example
from lite.stages.filter import score


def stage1_report(
    model: PeftModel,
    processor: ProcessorMixin,
    dev: Sequence[Example],
    test: Sequence[Example],
    corpus: Corpus,
    folder: Path,
    about: dict,
    *,
    document_chars: int,
    batch_size: int,
    min_recall: float,
    hard_pool_size: int,
    console: Console,
) -> dict:
    """Tune the filter on dev, compare base and trained filter on test, write `report.json`, `report.md` and plots.

    With fewer dev questions than `FEW_TO_TUNE` nothing is tuned: a fixed number of documents is kept.

    Args:
        model: With stage 1's adapter active.
        processor: Of the same model.
        dev, test: Questions that tune the threshold, and those that are reported on.
        corpus: The documents in which BM25 counts words and from which hard pools are drawn.
        folder: The run's, with its `adapter/` and `metrics.jsonl`.
        about: `data` and `seed`, for the report's first lines, and `health`, sentences on how the training went.
        document_chars: As in training.
        batch_size: Pairs per forward pass.
        min_recall: Recall on dev that the threshold must keep.
        hard_pool_size: Documents per question in the hard pools.

    Returns:
        The report, as in `report.json`.
    """
    hard = [hard_pool(example, corpus, hard_pool_size) for example in test]
    pairs = sum(len(example.documents) for example in [*dev, *test, *test, *hard, *hard])
    console.print(f"Scoring {pairs} pairs of a question and a document for the report.", highlight=False)
    with progress_bar(console) as progress:
        task = progress.add_task("scoring dev and test", total=pairs)
        pace = tell_pace(console, "Report", pairs)

        def advance(done: int) -> None:
            progress.advance(task, done)
            pace(done)

        def judge(examples: Sequence[Example]) -> list[Judged]:
            flat = [(example.question, document) for example in examples for document in example.documents]
            return judged(examples, score(model, processor, flat, document_chars, batch_size, advance))

        enough = len(dev) >= FEW_TO_TUNE  # a threshold from fewer would be chance
        tuned = tune_filter(judge(dev), min_recall) if enough else fixed_filter(judge(dev))
        trained, trained_hard = judge(test), judge(hard)
        with model.disable_adapter():
            base, base_hard = judge(test), judge(hard)

    report = {
        "stage": "stage1",
        "data": about["data"],
        "questions": {"dev": len(dev), "test": len(test)},
        "reported_on": reported_on(test),
        "seed": about["seed"],
        "health": about["health"],
        "adapter_hash": adapter_hash(folder / "adapter"),
        "filter": {key: tuned[key] for key in ("threshold", "max_kept")} | {"tuned_on": "dev" if enough else "nothing"},
        "filter_on_dev": {key: tuned[key] for key in ("recall_kept", "share_filtered")},
        "filter_on_test": filter_quality(trained, tuned["threshold"], int(tuned["max_kept"])),
        **side_by_side(base, trained, lexical := bm25(test, corpus)),
        "hard_pools": side_by_side(base_hard, trained_hard, bm25(hard, corpus)) | {"size": hard_pool_size},
        "by_kind": by_kind(test, base, trained, lexical),
    }
    write_report(report, folder, {"base": base, "trained": trained}, console)
    return report


def write_report(report: dict, folder: Path, runs: dict[str, list[Judged]], console: Console) -> None:
    """Write `report.json`, `report.md` and the plots into `folder`, and print the tables."""
    write_text(folder / "report.json", json.dumps(report, indent=2) + "\n")
    plot_rewards(folder)
    plot_roc(runs, folder / "roc.png")
    plot_scores(runs["trained"], report["filter"]["threshold"], folder / "scores.png")
    write_text(folder / "report.md", filter_markdown(report))
    console.print(filter_table(report, f"{report['reported_on']}: the data's own pools"))
    console.print(filter_table(report["hard_pools"], f"The same with hard pools of {report['hard_pools']['size']}"))
    console.print(filter_sentence(report), soft_wrap=True)


def side_by_side(base: list[Judged], trained: list[Judged], lexical: list[Judged]) -> dict:
    """The figures of every system and the paired differences trained - base and trained - BM25."""
    ranked = [name for name in FILTER_FIGURES if name != "accuracy"]  # BM25 has no threshold at which it would say Yes
    return {
        "base": summarise(base),
        "trained": summarise(trained),
        "difference": compare(trained, base),
        "bm25": {name: figure for name, figure in summarise(lexical).items() if name in ranked},
        "over_bm25": {name: figure for name, figure in compare(trained, lexical).items() if name in ranked},
        "chance": chance(trained),
    }


def by_kind(test: Sequence[Example], *systems: list[Judged]) -> dict:
    """`side_by_side` of the questions on one document, on two or more, and of each category."""
    subsets: dict[str, Callable[[Example], bool]] = {
        "one document": lambda example: len(example.relevant) == 1,
        "two documents": lambda example: len(example.relevant) > 1,
    }
    subsets |= {kind: (lambda example, kind=kind: example.category == kind) for kind in (e.category for e in test)}
    chosen = {name: np.flatnonzero([belongs(example) for example in test]) for name, belongs in subsets.items()}
    return {
        name: {"questions": len(places)} | side_by_side(*([run[i] for i in places] for run in systems))
        for name, places in chosen.items()
        if len(places)
    }
