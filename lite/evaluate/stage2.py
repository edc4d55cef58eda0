"""The report on ranking and answering: the test split asked with and without what was trained."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from peft import PeftModel
from rich.console import Console
from transformers import ProcessorMixin

from lite.data.pools import Corpus
from lite.evaluate.answers import Budget, answer_examples, predictions_path
from lite.evaluate.figures import citing, evidence_test, report_systems, reported_on, supported
from lite.evaluate.pace import tell_pace
from lite.evaluate.report import answers_markdown, answers_table, evidence_sentence, plot_rewards
from lite.evaluate.scores import lexical_scores, stage1_scores
from lite.files import write_text
from lite.models.adapters import active, load_weights
from lite.runs import CARD, STAGE2, TINY, read_card
from lite.schema import Example, Trace, digest
from lite.stages.answer import BASE, COLD_START, FULL, STAGE1_BASE, Listing, say
from lite.stages.support import check_support


def stage2_report(
    model: PeftModel,
    processor: ProcessorMixin,
    examples: Sequence[Example],
    corpus: Corpus,
    folder: Path,
    about: dict,
    *,
    stage1: Path | None,
    trained: Sequence[str],
    budget: Budget,
    orders: int,
    console: Console,
) -> dict:
    """Answer the questions with and without what was trained; write `report.json`, `report.md`, plots, predictions.

    Answers of the same adapters to the same questions, as a stopped report leaves them, are not asked for again.

    Args:
        model: With the adapters that `trained` names.
        processor: Of the same model.
        examples: Questions that nothing was trained or tuned on.
        corpus: The documents in which BM25 counts words.
        folder: The run's, with `adapter/`, `metrics.jsonl` and, after a cold start, `cold_start/`.
        about: `data`, `seed`, `adapter_mode` and `health`, sentences on how the training went.
        stage1: The adapter that filters, with its tuned threshold; None where there is none.
        trained: Names of the adapters that answer together.
        budget: Of a prompt without a filter; the filter's threshold comes from the card of `stage1`.
        orders: In how many orders of its documents each question is asked.

    Returns:
        The report, as in `report.json`.
    """
    lexical = lexical_scores(examples, corpus)
    filtered = unfiltered = budget
    scores = lexical
    if stage1 is not None:
        card = read_card(stage1)
        scores = stage1_scores(model, processor, examples, card, budget.batch_size, console)
        filtered = replace(budget, threshold=card["threshold"], max_kept=card["max_kept"])
    hashes = {
        "adapter_hash": read_card(folder / "adapter")["hash"],
        "stage1_hash": read_card(stage1)["hash"] if stage1 is not None else None,
    }
    owner = hashes | {"threshold": float(filtered.threshold), "max_kept": filtered.max_kept}
    _claim_predictions(folder / "predictions", owner | {"examples": digest(examples)})

    cold_start = (folder / "cold_start" / CARD).exists()
    answers = len(examples) * orders * (2 + (stage1 is not None) + cold_start)
    console.print(f"Asking {answers:,} times for the report, less what a stopped one has kept.", highlight=False)
    pace = tell_pace(console, "Report", answers)

    def run(name: str, adapters: Sequence[str], scores: Sequence[np.ndarray], budget: Budget) -> list[list[Trace]]:
        ask = partial(say, model, processor)
        found = []
        for order in range(orders):
            path = predictions_path(folder, name, order)
            with active(model, adapters):
                found.append(answer_examples(ask, examples, scores, budget, path, console, name, order, pace))
        return found

    full = FULL if stage1 is not None else "stage 2 alone"
    systems = {BASE: run(BASE, [], lexical, unfiltered)}
    if stage1 is not None:
        systems[STAGE1_BASE] = run(STAGE1_BASE, [], scores, filtered)
    if cold_start:
        name = COLD_START if stage1 is not None else "cold start alone"
        load_weights(model, folder / "cold_start", STAGE2)
        systems[name] = run(name, trained, scores, filtered)
        load_weights(model, folder / "adapter", STAGE2)
    systems[full] = run(full, trained, scores, filtered)

    baseline = STAGE1_BASE if stage1 is not None else BASE
    report = {"stage": STAGE2, **about, **hashes, "full": full, "baseline": baseline}
    report |= {"reported_on": reported_on(examples)} | report_systems(examples, systems, full, baseline)
    report["citing"] = {name: citing(examples, found[0]) for name, found in systems.items()}
    with active(model, trained):
        report |= _evidence(model, processor, systems[full][0], examples, budget)
    tiny = model.config.name_or_path == str(TINY)
    write_report(report, folder, budget.max_documents, tiny, console)
    return report


def _evidence(
    model: PeftModel, processor: ProcessorMixin, traces: Sequence[Trace], examples: Sequence[Example], budget: Budget
) -> dict:
    """What the answers of the full system rest on: `evidence` and `support`. Its adapters are active."""

    def ask(listings: list[Listing]) -> list[str]:
        return say(model, processor, listings, budget.document_chars, budget.max_new_tokens, budget.batch_size)

    check = partial(check_support, model, processor, document_chars=budget.document_chars)
    return {
        "evidence": evidence_test(traces, ask, examples, budget.quotes),
        "support": supported(traces, check, examples, budget.quotes),
    }


def _claim_predictions(folder: Path, owner: dict) -> None:
    """Throw away predictions of other adapters, other questions or another threshold."""
    whose, written = folder / "of.json", json.dumps(owner, indent=2) + "\n"
    if not whose.exists() or whose.read_text() != written:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        write_text(whose, written)


def write_report(report: dict, folder: Path, max_documents: int, tiny: bool, console: Console) -> None:
    """Write `report.json`, `report.md` and the plot into `folder`, and print the table."""
    write_text(folder / "report.json", json.dumps(report, indent=2) + "\n")
    plot_rewards(folder)
    cold_start = any("cold start" in name for name in report["systems"])
    notes = [
        f"Data: {report['data']}, {report['reported_on']}; seed {report['seed']}; adapter "
        f"`{report['adapter_hash'][:12]}`. Intervals are 95 % bootstrap over questions. At most "
        f"{max_documents} documents in a prompt." + (" The embedded tiny model knows only flags." if tiny else ""),
        "",
        f"`{BASE}` gets BM25's best documents, the others what stage 1 keeps."
        + (f" `{COLD_START}` is what GRPO began with." if cold_start else ""),
    ]
    text = answers_markdown(report, "Stage 2: rank and answer", notes)
    write_text(folder / "report.md", text + "\n![reward](reward.png)\n")
    console.print(answers_table(report, report["reported_on"]))
    if report["evidence"]["questions"]:
        console.print(evidence_sentence(report["evidence"]), soft_wrap=True, highlight=False)
