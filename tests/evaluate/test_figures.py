"""Whole answers over a split without a model: what says the completions is a function."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from lite.evaluate.answers import Budget, answer_examples
from lite.evaluate.figures import citing, evidence_test, report_systems, supported
from lite.evaluate.report import answers_table, evidence_lines
from lite.schema import Document, Example, Trace
from lite.stages.answer import FULL, STAGE1_BASE, Listing, arrange, trace
from lite.stages.support import RESTS, WEAK, Support

DOCUMENTS = tuple(Document(f"d{i}", "text", f"Title {i}", f"Text {i}.") for i in range(4))
EXAMPLE = Example("q", "Which?", DOCUMENTS, frozenset({"d1"}), ("yes",), split="test")
BUDGET = Budget(-np.inf, 4, 4, 100, 10, 8)
SCORES = np.array([0.1, 0.9, 0.5, 0.3])


def completion(answer: str, *numbers: int) -> str:
    chain = " ".join(f"[{number}] helps." for number in numbers)
    return f"<think>{chain}</think><rank>{' > '.join(f'[{n}]' for n in numbers)}</rank><answer>{answer}</answer>"


def saying(say: Callable[[Listing], str]) -> Callable[..., list[str]]:
    """What `answer_examples` asks, with `say` for the model."""

    def ask(listings: Sequence[Listing], chars: int, tokens: int, batch: int, done: Callable) -> list[str]:
        texts = [say(listing) for listing in listings]
        done(list(range(len(texts))), texts)
        return texts

    return ask


def answered(example: Example, say: Callable[[Listing], str], path: Path | None = None) -> Trace:
    (outcome,) = answer_examples(saying(say), [example], [SCORES], BUDGET, path, Console())
    return outcome


def place(listing: Listing, name: str) -> int:
    return [document.id for document in listing.documents].index(name) + 1


def test_predictions_are_kept_and_not_asked_for_again(tmp_path: Path) -> None:
    path = tmp_path / "predictions.jsonl"
    first = answered(EXAMPLE, lambda listing: completion("yes", 1), path)
    assert answered(EXAMPLE, lambda listing: pytest.fail("asked again"), path) == first
    assert [json.loads(line)["id"] for line in path.read_text().splitlines()] == ["q"]


def test_figures_are_means_over_the_orders_of_the_documents_and_intervals_are_over_questions() -> None:
    """A model that is right when `d1` comes first: as often as it does."""

    def say(listing: Listing) -> str:
        return completion("yes" if place(listing, "d1") == 1 else "no", place(listing, "d1"))

    examples = [replace(EXAMPLE, id=f"q{i}", question=f"Which {i}?") for i in range(3)]
    scores = [SCORES] * 3
    asked = [answer_examples(saying(say), examples, scores, BUDGET, None, Console(), order=order) for order in range(8)]
    assert len({outcome.shown for traces in asked for outcome in traces}) > 8
    assert {outcome.kept for traces in asked for outcome in traces} == {("d1", "d2", "d3", "d0")}
    report = report_systems(examples, {FULL: asked}, FULL, FULL)
    assert report["orders"] == 8
    assert report["questions"] == 3
    shares = [sum(traces[i].shown[0] == "d1" for traces in asked) / 8 for i in range(3)]
    exact = report["systems"][FULL]["exact_match"]
    assert exact["value"] == pytest.approx(sum(shares) / 3)
    assert min(shares) <= exact["low"] <= exact["high"] <= max(shares)


def test_the_evidence_test_takes_documents_away_and_leaves_the_others_in_their_order() -> None:
    """The model cites `d1` and says yes as long as it sees it."""
    outcome = answered(EXAMPLE, lambda listing: completion("yes", place(listing, "d1")))
    asked: list[list[Listing]] = []

    def ask(listings: list[Listing]) -> list[str]:
        asked.append(listings)
        return [completion("yes" if any(d.id == "d1" for d in listing.documents) else "no", 1) for listing in listings]

    found = evidence_test([outcome], ask, [EXAMPLE])
    assert found["questions"] == 1
    assert found["changed_without_cited"]["value"] == 1
    assert found["changed_without_uncited"]["value"] == 0
    assert found["difference"]["value"] == 1
    ((without_cited,), (without_uncited,)) = asked
    assert [document.id for document in without_cited.documents] == [i for i in outcome.shown if i != "d1"]
    left = [document.id for document in without_uncited.documents]
    assert "d1" in left
    assert len(left) == 3
    assert left == [i for i in outcome.shown if i in left]
    best_first = [without_uncited.documents[number - 1].id for number in without_uncited.stage1_order]
    assert best_first == [i for i in outcome.kept if i in left]


@pytest.mark.parametrize("said", [completion("yes", 1, 2, 3), completion("yes", 1, 2, 3, 4), "malformed"])
def test_the_evidence_test_leaves_out_where_as_many_uncited_documents_are_not_there(said: str) -> None:
    outcome = answered(EXAMPLE, lambda listing: said)
    assert evidence_test([outcome], lambda listings: pytest.fail("asked"), [EXAMPLE]) == {"questions": 0}


def test_the_terminal_shows_every_figure_in_80_columns() -> None:
    listing = arrange("Which?", DOCUMENTS)
    right = trace(listing, completion("yes", place(listing, "d1")), DOCUMENTS)
    wrong = trace(listing, "malformed", DOCUMENTS)
    names = ("base", STAGE1_BASE, "no ranking reward", "continued, not stacked", FULL)
    systems = {name: [[right if name == FULL else wrong] * 3] for name in names}
    report = report_systems([EXAMPLE] * 3, systems, FULL, STAGE1_BASE) | {"full": FULL, "baseline": STAGE1_BASE}
    console = Console(width=80, record=True)
    console.print(answers_table(report, "3 questions of test"))
    shown = console.export_text()
    assert "…" not in shown
    assert max(len(line) for line in shown.splitlines()) <= 80
    (row,) = [line for line in shown.splitlines() if FULL in line and "gain" not in line]
    assert row.count("1.000") == 6
    assert "+1.000*" in shown


def test_what_is_cited_and_quoted_by_hand() -> None:
    listing = Listing("Which?", DOCUMENTS, (1, 2, 3, 4), True)
    said = [
        ('[2] helps: "Text 1" "Text 7" [1] does not help.', "[2]"),  # right, one quote of two
        ('[1] helps: "Text 0". [2] helps.', "[1] > [2]"),  # one document too many
        ("[2] does not help.", "[2]"),  # contradicts itself
        ("[3] helps.", "none"),  # cites nothing
    ]
    traces = [
        trace(listing, f"<think>{chain}</think><rank>{rank}</rank><answer>yes</answer>", DOCUMENTS)
        for chain, rank in said
    ]
    found = citing([EXAMPLE] * 5, [*traces, trace(listing, "malformed", DOCUMENTS)])
    assert found["quotes"] == 3
    figures = {name: figure["value"] for name, figure in found.items() if name != "quotes"}
    assert figures == pytest.approx(
        {"citation_precision": 2.5 / 3, "citation_recall": 1, "quote_precision": 0.75, "contradicts": 1 / 3}
    )
    assert citing([EXAMPLE], [trace(listing, "malformed", DOCUMENTS)]) == {"quotes": 0}


def test_support_is_counted_beside_its_control() -> None:
    listing = Listing("Which?", DOCUMENTS, (1, 2, 3, 4), True)
    outcome = trace(listing, completion("yes", 2), DOCUMENTS)
    answers = iter(
        [Support(RESTS, None, 2.0, 0.1, 0.1, 3.0), Support(WEAK, None, 0.1, 0.5, 4.0, 3.0), Support(RESTS, True, 3.0)]
    )
    asked = []

    def check(found: Trace, of: Listing) -> Support:
        asked.append(of.quotes)
        return next(answers)

    unknown = replace(outcome, answer="not in the documents")
    found = supported([outcome, unknown, outcome, outcome], check, [EXAMPLE] * 4, True)
    assert found["questions"] == 3
    assert asked == [True] * 3
    shares = {name: figure["value"] for name, figure in found.items() if name != "questions"}
    assert shares == pytest.approx({"rests": 2 / 3, "necessary": 0.5, "sufficient": 0.5})
    assert supported([unknown], check, [EXAMPLE], False) == {"questions": 0}
    lines = "\n".join(evidence_lines({"citing": {"full": citing([EXAMPLE], [outcome])}, "support": found}))
    assert "| full | 1.000" in lines
    assert "Of 3 answers that cite something, 0.667" in lines
    assert evidence_lines({}) == []
