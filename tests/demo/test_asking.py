"""Which documents a question is asked about, what the controls mean, and loaded traces."""

from __future__ import annotations

import json
import re
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from lite.demo import asking as demo
from lite.demo import view
from lite.demo.page import portable
from lite.demo.panels import tuned_label
from lite.demo.server import make_desk
from lite.rag import RETRIEVED, Rag
from lite.schema import Document, LiteError


def test_many_files_give_the_nearest_documents_and_few_give_all() -> None:
    documents = [Document(f"d{n}", "text", f"Land {n}", f"Its capital is Town{n}.") for n in range(40)]
    found, words = demo.look_up("Where is Town37?", demo.MINE, None, {"a": documents[:20], "b": documents[20:]})
    assert len(found) == RETRIEVED
    assert found[0].id == "d37"
    assert words == "from your 2 files"
    assert demo.look_up("Where is Town37?", demo.MINE, None, {"a": documents[:3]})[0] == documents[:3]
    bundled, words = demo.look_up("What is the capital of Chad?", demo.BUNDLED, None, {})
    assert len(bundled) == RETRIEVED
    assert any("Chad" in document.title for document in bundled)
    with pytest.raises(LiteError, match="No files of yours"):
        demo.look_up("Why?", demo.MINE, None, {})


def test_without_a_named_model_own_files_show_their_best_passages() -> None:
    own = {"a": [Document(f"d{n}", "text", f"Land {n}", f"Its capital is Town{n}.") for n in range(5)]}
    desk = replace(desk_of(), bundled_only=True)  # its model never loads
    *_, page = demo.ask(desk, "Where is Town3?", demo.MINE, own, None, None)
    assert page.documents[0].id == "d3"
    assert page.message.startswith("No model has read these; name one with --model.")
    assert not page.running
    *_, page = demo.ask(desk, "xyzzy?", demo.MINE, own, None, None)
    assert (page.documents, page.message) == ((), "Nothing fits.")
    assert "No model has read these" in view.steps(replace(page, message="No model has read these"))
    first = next(demo.ask(desk, "What is the capital of Peru?", demo.BUNDLED, {}, None, None))
    assert first.step == "load"  # the bundled documents are the embedded model's


def test_an_untrained_model_is_said_to_be_one(random_folder: Path) -> None:
    desk = make_desk(str(random_folder), None)
    assert desk.untrained
    assert "untrained" in desk.adapters
    assert "untrained" in view.banner(desk.base, desk.adapters, desk.note)
    assert tuned_label(desk, False) == "Untrained: the best 5"
    assert not make_desk("tiny", None).untrained
    assert [make_desk("tiny", None, named).bundled_only for named in (True, False)] == [False, True]
    with pytest.raises(LiteError, match="no/such is not on this machine"):
        make_desk("no/such", None)


def desk_of(threshold: float = 0.019752411972251156, budget: int = 5) -> demo.Desk:
    return demo.Desk(Future(), None, "tiny", "shipped", "", threshold, budget)


def test_untouched_controls_are_the_tuned_filter() -> None:
    desk = desk_of()
    assert demo.settings(desk, 0.0198, 5) == (0.019752411972251156, 5)
    assert demo.settings(desk, None, None) == (0.019752411972251156, 5)
    assert demo.settings(desk, float("nan"), float("nan")) == (0.019752411972251156, 5)
    assert demo.settings(desk, 0.021, 99) == (0.021, 5)
    assert demo.settings(desk, -1, 0) == (0.0, 1)
    assert demo.settings(desk, float("inf"), 2.0) == (1.0, 2)


def test_a_question_waits_for_the_model_and_says_so() -> None:
    desk = desk_of()
    pages = demo.ask(desk, "Why?", demo.BUNDLED, {}, None, None)
    assert next(pages).step == "load"
    assert next(pages).step == "load"
    desk.model.set_exception(LiteError("no such model"))
    with pytest.raises(LiteError, match="no such model"):
        list(pages)


def test_a_loaded_trace_opens_no_file_that_it_names(rag: Rag, tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "secret.png")
    outcome = rag.ask("Which is red?", [Document("img:td", "image", "Not Chad's", image=tmp_path / "secret.png")])
    assert "secret.png" in outcome.to_json()
    (tmp_path / "trace.json").write_text(outcome.to_json())
    page = demo.loaded(tmp_path / "trace.json")
    assert page.pictures == {"img:td": ""}
    assert page.trace == outcome
    assert demo.cannot_go_on(page)
    bundled = demo.bundled().documents[0]
    outcome = rag.ask("Which is red?", [bundled, *demo.bundled().nearest("flag of Chad", 3)])
    (tmp_path / "trace.json").write_text(outcome.to_json())
    assert any(demo.loaded(tmp_path / "trace.json").pictures.values())


def test_a_loaded_trace_is_what_was(rag: Rag, tmp_path: Path) -> None:
    """Asked again without a document and with another threshold: neither the rest's places nor the cut is another."""
    desk = replace(desk_of(0.5), model=Future())
    desk.model.set_result(rag)
    *_, first = demo.ask(desk, "What is the capital of Chad?", demo.BUNDLED, {}, 0.0, 3)
    gone = first.documents[1].id
    *_, was = demo.ask_again(desk, replace(first, off=frozenset({gone})), 1e-9, 3)
    (tmp_path / "trace.json").write_text(portable(was).to_json())
    shown = demo.loaded(tmp_path / "trace.json")
    assert [d.id for d in shown.documents] == [d.id for d in was.documents]
    assert (shown.off, shown.threshold) == (frozenset({gone}), 1e-9)
    assert (shown.scores, shown.kept, shown.shown) == (was.scores, was.kept, was.shown)
    assert gone not in shown.asked
    html = re.sub("<button[^>]*switch.*?</button>", "", view.cards(replace(was, tuned=None)))
    assert re.findall("<article.*?</article>", view.cards(shown), re.DOTALL) == re.findall(
        "<article.*?</article>", html, re.DOTALL
    )


def test_a_trace_of_an_earlier_version_is_still_shown(rag: Rag, tmp_path: Path) -> None:
    outcome = rag.ask("What is the capital of Chad?", demo.bundled().nearest("capital Chad", 4))
    old = {k: v for k, v in json.loads(outcome.to_json()).items() if k not in ("threshold", "switched_off")}
    (tmp_path / "trace.json").write_text(json.dumps(old))
    page = demo.loaded(tmp_path / "trace.json")
    assert page.threshold is None
    assert page.trace == replace(outcome, threshold=None)
    assert "threshold not recorded" in view.cards(page)


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"\xff\xfe", b'{"question": "q"}', b"[" * 100_000])
def test_what_is_no_trace_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "trace.json").write_bytes(content)
    with pytest.raises(LiteError, match="trace"):
        demo.loaded(tmp_path / "trace.json")
