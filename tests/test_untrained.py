"""Any model, without adapters: it filters by its own probabilities, ranks and answers; and what it says is read."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from lite.library.store import Library
from lite.rag import Rag
from lite.schema import Document, LiteError, Trace
from lite.stages.lenient import read_stage2

QUESTION = "What is the capital of Chad?"
DOCUMENTS = [Document(f"d{i}", "text", f"Note {i}", f"The capital of land {i} is Town {i}.") for i in range(9)]
FORM = "```\n<Think>[1] helps.</Think>\n<rank>[1, 2]</rank>\n<answer>Town\n```"


@pytest.fixture(scope="module")
def bare(random_folder: Path) -> Rag:
    rag = Rag.load(str(random_folder))
    rag.stage2["max_completion_length"] = 8
    return rag


def test_it_ranks_and_keeps_a_fixed_number(bare: Rag) -> None:
    outcome = bare.ask(QUESTION, DOCUMENTS)  # of one form, so that search puts them in no order
    best_first = sorted(outcome.scores, key=outcome.scores.__getitem__, reverse=True)
    assert outcome.untrained
    assert outcome.fused
    assert outcome.kept == tuple(best_first[: bare.budget])
    assert outcome.dropped == ()
    assert Trace.from_json(outcome.to_json()) == outcome
    assert "untrained" in bare.note


@pytest.mark.parametrize("place", [0, 8])
def test_what_search_puts_first_is_kept(bare: Rag, monkeypatch: pytest.MonkeyPatch, place: int, tmp_path: Path) -> None:
    """An untrained filter gave the right passage P .0003 and a receipt .63."""
    right = Document("right", "text", "Chad", "N'Djamena is the capital of Chad.")
    others = [Document(f"o{i}", "text", f"Receipt {i}", f"Paid: {i} euros for lunch.") for i in range(8)]
    documents = [*others[:place], right, *others[place:]]
    bad = np.linspace(0.6, 0.7, 9)
    bad[place] = 0.0003
    monkeypatch.setattr("lite.rag.score", lambda *_: bad)
    monkeypatch.setattr("lite.rag.say_streaming", lambda *_: iter([FORM]))
    outcome = bare.ask(QUESTION, documents)
    assert outcome.fused
    assert "right" in outcome.kept
    assert len(outcome.kept) == bare.budget
    assert outcome.scores["right"] == 0.0003
    # in a library, the search's own order counts
    library = Library.open(tmp_path / "library", create=True)
    monkeypatch.setattr(library, "search", lambda *_: [SimpleNamespace(document=d) for d in [right, *others]])
    bad[:] = np.linspace(0.6, 0.7, 9)
    bad[0] = 0.0003
    assert "right" in bare.ask(QUESTION, library=library).kept
    *_, done = bare.ask_stream(QUESTION, documents, threshold=0.5)
    assert not done.trace.fused


def test_a_threshold_that_is_asked_for_is_obeyed(bare: Rag) -> None:
    *_, done = bare.ask_stream(QUESTION, DOCUMENTS, threshold=1.0)
    assert done.trace.kept == ()


def test_its_answers_can_be_explained(bare: Rag) -> None:
    outcome = bare.ask(QUESTION, DOCUMENTS[:2])
    assert tuple(found.id for found in bare.explain(outcome, DOCUMENTS)) == outcome.kept


def test_what_is_a_little_off_the_form_is_an_answer_with_a_note(bare: Rag, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lite.rag.say_streaming", lambda *_: iter([FORM]))
    outcome = bare.ask(QUESTION, DOCUMENTS)
    assert (outcome.answer, outcome.failure) == ("Town", "")
    assert outcome.cited == outcome.shown[:2]
    assert outcome.raw == FORM
    assert read_stage2(FORM, 5)[1] in outcome.note


def test_a_trace_of_an_earlier_version_loads(bare: Rag) -> None:
    fields = json.loads(bare.ask(QUESTION, DOCUMENTS[:1]).to_json())
    old = Trace.from_json(json.dumps({k: v for k, v in fields.items() if k not in ("untrained", "note", "fused")}))
    assert (old.untrained, old.note, old.fused) == (False, "", False)


def test_a_template_without_a_generation_prompt_is_refused(random_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(random_folder, tmp_path / "model")
    for template in (tmp_path / "model").glob("*.jinja"):
        template.write_text(template.read_text().replace("add_generation_prompt", "never"))
    with pytest.raises(LiteError, match="ignores add_generation_prompt"):
        Rag.load(tmp_path / "model")
