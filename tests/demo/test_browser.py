"""The demo in a real browser, with the embedded model: what people see, try and must never see.

Nothing here depends on what the model answers: its weights change. Questions are chosen by how it does with them.
"""

from __future__ import annotations

import base64
import json
import math
import os
import shutil
import socket
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pypdfium2 as pdfium
import pytest
from gradio_client import Client, handle_file
from PIL import Image, ImageDraw
from playwright.sync_api import Browser, Locator, Page, Route, expect, sync_playwright
from run_folders import make_runs

import lite.rag
from lite.demo.asking import LIBRARY, MINE, bundled
from lite.demo.server import Place, open_page, start
from lite.library.store import Library
from lite.rag import RETRIEVED, Rag
from lite.runs import SHIPPED
from lite.schema import Trace

WAIT = 60_000  # ms; a shared machine can be very slow
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
FLAGS += ["--disable-sync", "--no-first-run"]
INSTALL = "no Chromium: `apt-get install chromium`, or `playwright install chromium`"
ATTACK = "<script>window.owned=1</script><img src=x onerror=window.owned=2> ${window.owned=3} {{constructor}} </p>"
QUESTIONS = [
    "What is the capital of Andorra?", "What is the highest point in Andorra?", "What is the capital of Chad?",
    "What is the capital of Peru?", "What is the highest point in Sweden?", "What is the capital of Kenya?",
]  # fmt: skip
expect.set_options(timeout=WAIT)


STRANGERS: list[str] = []  # whom the server, which runs in this process, or a page wanted to reach


@pytest.fixture(scope="session")
def watched() -> None:
    """From now on every connection of this process to another machine is noted; hooks cannot be taken back."""

    def note(event: str, arguments: tuple) -> None:
        if event in ("socket.connect", "socket.getaddrinfo"):
            address = arguments[1] if event == "socket.connect" else arguments
            if isinstance(address, tuple) and address[0] not in ("127.0.0.1", "::1", "localhost", None):
                STRANGERS.append(f"{event} {address[0]}")

    sys.addaudithook(note)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        path = shutil.which("chromium") or shutil.which("chromium-browser") or playwright.chromium.executable_path
        if not Path(path).exists():
            if os.environ.get("CI"):
                pytest.fail(INSTALL)
            pytest.skip(INSTALL)
        yield playwright.chromium.launch(executable_path=path, args=FLAGS)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


class Demo:
    """The running demo, and what may be done to the model behind it."""

    def __init__(self, rag: Rag, folder: Path):
        self.rag, self.folder = rag, folder
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"


@pytest.fixture(scope="module")
def demo(browser: Browser, watched: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    running = Demo(Rag.load(SHIPPED), tmp_path_factory.mktemp("uploads"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Rag, "load", lambda *_: running.rag)
        runs = make_runs(tmp_path_factory.mktemp("runs"))
        page = start(running.folder, str(SHIPPED), place=Place(port=running.port), runs=runs)
        yield running
        page.close(verbose=False)


@pytest.fixture
def visit(browser: Browser, demo: Demo) -> Iterator[Callable[..., Page]]:
    """Opens the demo as a new visitor. Afterwards: no request left the machine, no script of a document ran."""
    contexts = []
    STRANGERS.clear()

    def open_page(**options) -> Page:
        context = browser.new_context(**{"viewport": {"width": 1360, "height": 900}} | options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(WAIT)
        local = (demo.url, "data:", "blob:")
        page.on("request", lambda request: None if request.url.startswith(local) else STRANGERS.append(request.url))
        page.goto(demo.url)
        expect(page.locator("#steps .step")).to_have_count(4)
        return page

    yield open_page
    for context in contexts:
        for page in context.pages:
            assert page.evaluate("window.owned") is None
        context.close()
    assert STRANGERS == []


@pytest.fixture(scope="module")
def question(demo: Demo) -> str:
    """One that this model answers in good form, citing something, with two documents or more to read."""
    for candidate in QUESTIONS:
        outcome = demo.rag.ask(candidate, bundled().nearest(candidate, RETRIEVED))
        if outcome.format_ok and outcome.cited and len(outcome.kept) > 1 and "[" in outcome.reasoning:
            return candidate
    pytest.fail("The shipped model answers none of the questions in good form.")


def ask(page: Page, question: str) -> None:
    page.locator("#question textarea").fill(question)
    page.locator("#ask").click()


def answered(page: Page) -> Locator:
    """Waits until the question is answered."""
    expect(page.locator("#steps .step.done")).to_have_count(4)
    return page.locator("#answer")


def choose_files(page: Page, *paths: Path) -> None:
    page.get_by_label(MINE).check()
    page.locator("#files input[type=file]").set_input_files(paths)
    expect(page.locator("#notes .message", has_not_text="Reading").first).to_be_visible()


def trace_of(page: Page) -> Trace:
    open_details(page)
    href = page.locator("a.download").get_attribute("href")
    return Trace.from_json(base64.b64decode(href.split(",")[1]).decode())


def open_details(page: Page) -> None:
    """Open the last part of the page; wait until it is, or a second call would take it for closed and close it."""
    load = page.locator("#load")
    if not load.is_visible():
        page.locator("#details button").first.click()
        expect(load).to_be_visible()


def load_trace(page: Page, path: Path) -> None:
    open_details(page)
    with page.expect_file_chooser() as chooser:
        page.locator("#load").click()
    chooser.value.set_files(path)


class Gate:
    """Holds the model before every piece of text that it says, until opened."""

    def __init__(self, patch: pytest.MonkeyPatch):
        self.open, self.reached = threading.Event(), threading.Event()
        say = lite.rag.say_streaming

        def say_slowly(*arguments):
            for piece in say(*arguments):
                self.reached.set()
                assert self.open.wait(WAIT / 1000)
                yield piece

        patch.setattr(lite.rag, "say_streaming", say_slowly)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    held = Gate(monkeypatch)
    yield held
    held.open.set()


# ----------------------------------------------------------------------------------------------------------- a question


def test_an_example_shows_documents_scores_ranking_a_growing_chain_and_the_answer(visit, demo: Demo) -> None:
    page = visit()
    expect(page.locator("#banner")).to_contain_text("only flags")
    page.locator("#reasoning").wait_for(state="attached")  # the page is built in steps
    page.evaluate(
        """window.lengths = new Set();
        new MutationObserver(() => lengths.add(document.querySelector("#reasoning .chain")?.innerText.length))
            .observe(document.querySelector("#reasoning"), {subtree: true, childList: true, characterData: true})"""
    )
    page.locator("#examples button").first.click()
    answer = answered(page)
    asked = page.locator("#question textarea").input_value()
    expect(answer.locator("q")).to_have_text(asked)
    outcome = trace_of(page)
    assert outcome.question == asked

    cards = page.locator("#documents .card")
    expect(cards).to_have_count(len(outcome.retrieved))
    expect(page.locator("#documents [role=meter]")).to_have_count(len(outcome.retrieved))
    expect(page.locator("#documents .card.kept")).to_have_count(len(outcome.kept))
    expect(page.locator("#documents .card.left")).to_have_count(len(outcome.retrieved) - len(outcome.kept))
    below = [i for i, score in outcome.scores.items() if score < demo.rag.stage1["threshold"]]
    expect(page.locator("#documents").get_by_text("below threshold")).to_have_count(len(below))
    expect(page.locator("#ranking li:not(.head)")).to_have_count(len(outcome.ranking))
    expect(page.locator("#ranking li:not(.head) .way").first).to_contain_text("→")
    if outcome.format_ok:
        expect(answer.locator(".sources .cite")).to_have_count(len(outcome.cited))
        lengths = sorted(length for length in page.evaluate("[...lengths]") if length)
        assert len(lengths) > 4  # it came in pieces


def test_a_citation_shows_its_card_by_mouse_and_by_keyboard(visit, question: str) -> None:
    page = visit()
    ask(page, question)
    answered(page)
    outcome = trace_of(page)
    chip = page.locator("#reasoning .cite").last
    number = int(chip.inner_text().strip("[]"))
    card = page.locator(f"#card-{chip.get_attribute('data-card')}")
    expect(card.locator("h5 b")).to_have_text(f"[{number}]")
    titles = {document["id"]: document["title"] for document in outcome.documents}
    expect(card.locator("h5")).to_contain_text(titles[outcome.shown[number - 1]])
    chip.click()
    expect(page.locator(".card.lit")).to_have_count(1)
    expect(card).to_be_in_viewport()

    page.evaluate("window.scrollTo(0, document.body.scrollHeight)")
    page.locator("#answer .sources .cite").first.focus()
    page.keyboard.press("Enter")
    lit = page.locator(".card.lit")
    expect(lit).to_have_count(1)
    expect(lit).to_be_in_viewport()
    expect(lit).to_contain_text("cited by the answer")


def test_the_filter_s_controls_act_at_once_without_scoring_anew(visit, demo: Demo, question: str, monkeypatch) -> None:
    page = visit()
    ask(page, question)
    answered(page)
    before = trace_of(page)
    scoring = lite.rag.score
    monkeypatch.setattr(lite.rag, "score", lambda *_: pytest.fail("stage 1 was asked again"))
    best = sorted(before.scores.values(), reverse=True)
    tuned = page.locator("#tuned")
    expect(tuned).to_be_disabled()
    box = page.locator("#count input[type=number]")
    box.fill("1")
    box.press("Tab")
    expect(page.locator("#documents .card.kept")).to_have_count(1)
    answered(page)
    one = trace_of(page)
    assert one.scores == before.scores
    assert one.kept == before.kept[:1]
    assert "stage 1" not in one.seconds
    expect(page.locator("#documents").get_by_text("over the budget")).to_have_count(
        sum(score >= page_threshold(page) for score in best) - 1
    )
    number, dial = page.locator("#threshold input"), page.locator("#dial input[type=range]")
    cut = best[1] * 1.01
    number.fill(f"{cut:.6f}")
    number.press("Enter")
    expect(page.locator("#documents")).to_contain_text(f"threshold {cut:.3g} (tuned")
    assert abs(float(dial.input_value()) - math.log(cut / (1 - cut))) < 0.1
    dial.evaluate("e => { e.value = e.max; e.dispatchEvent(new Event('input', {bubbles: true})) }")
    dial.dispatch_event("pointerup")
    expect(page.locator("#answer .unknown")).to_have_text("not in the documents")  # an outcome, no error
    expect(number).to_have_value("1")
    expect(page.locator("#documents .card.kept")).to_have_count(0)
    expect(page.locator("#answer .message.bad")).to_have_count(0)

    monkeypatch.setattr(lite.rag, "score", scoring)
    ask(page, question)  # what was moved stays, and is seen to
    expect(page.locator("#answer .settings")).to_contain_text("threshold 1, not the tuned")
    expect(page.locator("#steps")).to_contain_text("threshold 1, not the tuned")
    tuned.click()
    expect(page.locator("#answer .settings")).to_have_count(0)
    expect(tuned).to_be_disabled()
    answered(page)
    again = trace_of(page)
    assert (again.threshold, again.kept, again.answer) == (demo.rag.stage1["threshold"], before.kept, before.answer)


def page_threshold(page: Page) -> float:
    return float(page.locator("#documents .bar i").first.get_attribute("title").split()[1])


def test_without_a_document_the_answer_and_ranking_say_what_changed(visit, question: str) -> None:
    page = visit()
    ask(page, question)
    answered(page)
    before = trace_of(page)
    card = page.locator("#documents .card.cited").first
    title = card.locator("h5").inner_text().split("] ")[1]
    switch = card.locator("[role=switch]")
    switch.focus()
    page.keyboard.press("Space")
    expect(page.locator("#documents .card.off h5")).to_contain_text([title])
    expect(page.locator("#documents .message.note")).to_contain_text("Ask again")
    page.locator("#again").click()
    expect(page.locator("#answer .mark")).to_contain_text(f"without {title}")
    after = trace_of(page)
    assert len(after.retrieved) == len(before.retrieved) - 1
    assert "stage 1" not in after.seconds
    assert after.scores == {i: score for i, score in before.scores.items() if i in after.retrieved}
    expect(page.locator("#ranking .gone")).to_contain_text(title)
    changed = " ".join(after.answer.lower().split()) != " ".join(before.answer.lower().split())
    expect(page.locator("#answer .mark.changed" if changed else "#answer .mark.same")).to_be_visible()

    page.locator("#documents .card.off [role=switch]").click()
    expect(page.locator("#documents .card.off")).to_have_count(0)
    page.locator("#again").click()
    expect(page.locator("#answer .mark.same")).to_be_visible()
    assert trace_of(page).answer == before.answer


def test_three_systems_side_by_side(visit, question: str) -> None:
    page = visit()
    ask(page, question)
    answered(page)
    full = trace_of(page)
    page.locator("#compare").click()
    systems = page.locator("#comparison .system")
    expect(systems).to_have_count(3)
    expect(systems.locator(".text")).to_have_count(3)
    expect(systems.nth(2).locator(".text")).to_have_text(full.answer)
    ask(page, question)
    expect(systems).to_have_count(0)  # a new question's page shows nothing of the old one
    answered(page)


def test_a_malformed_output_is_shown_as_such_with_its_text(visit, demo: Demo, question: str, monkeypatch) -> None:
    monkeypatch.setitem(demo.rag.stage2, "max_completion_length", 6)
    page = visit()
    ask(page, question)
    box = answered(page).locator(".message.bad")
    expect(box).to_contain_text("malformed output: unclosed <think>")
    expect(box.locator("pre")).to_contain_text("<think>")
    expect(page.locator("#ranking li:not(.head)")).not_to_have_count(0)


def test_a_downloaded_trace_can_be_looked_at_again(visit, question: str, tmp_path: Path) -> None:
    page = visit()
    ask(page, question)
    answered(page)
    before = trace_of(page)
    open_details(page)
    expect(page.locator("#details table")).to_contain_text("stage 1")
    with page.expect_download() as download:
        page.locator("a.download").click()
    download.value.save_as(tmp_path / "trace.json")
    assert str(Path(lite.rag.__file__).parent) not in (tmp_path / "trace.json").read_text()

    other = visit(viewport={"width": 1360, "height": 600})
    load_trace(other, tmp_path / "trace.json")
    expect(answered(other).locator("q")).to_have_text(question)
    expect(other.locator("#answer .text")).to_be_in_viewport()
    assert trace_of(other) == before
    expect(other.locator("#documents .card.kept")).to_have_count(len(before.kept))
    for part in ("#documents .card h5", "#documents .score", "#documents footer", "#documents .divide", "#ranking li"):
        assert other.locator(part).all_inner_texts() == page.locator(part).all_inner_texts(), part
    expect(other.locator("[role=switch]")).to_have_count(0)
    (tmp_path / "wrong.json").write_text('{"question": 1}')
    load_trace(other, tmp_path / "wrong.json")
    expect(other.locator("#steps [role=alert]")).to_contain_text("This is not a trace")
    expect(other.locator("#documents .card")).to_have_count(0)


# ------------------------------------------------------------------------------------------------------------- my files


def make_pdf(path: Path, pages: int = 1) -> Path:
    sheets = [Image.new("RGB", (600, 800), (255 - n, 255, 255)) for n in range(pages)]
    for n, sheet in enumerate(sheets):
        ImageDraw.Draw(sheet).rectangle((100, 100, 500, 300 + n), fill=(0, 90, 200))
    sheets[0].save(path, save_all=True, append_images=sheets[1:])
    with pdfium.PdfDocument(path) as pdf:
        assert len(pdf) == pages
    return path


def test_an_image_and_a_pdf_of_mine_are_asked_about(visit, tmp_path: Path) -> None:
    Image.new("RGB", (90, 60), (200, 20, 20)).save(tmp_path / "My flag.png")
    page = visit()
    choose_files(page, tmp_path / "My flag.png", make_pdf(tmp_path / "report.pdf", 2))
    expect(page.locator("#notes")).to_contain_text("Documents: 3, from 2 files")
    ask(page, "Which flag is red?")
    answered(page)
    expect(page.locator("#documents .card")).to_have_count(3)
    expect(page.locator("#documents .card img.picture")).to_have_count(3)
    addresses = page.eval_on_selector_all("#documents img", "all => all.map(image => image.src)")
    assert all(address.startswith("data:image/webp") for address in addresses)
    assert sorted(trace_of(page).retrieved) == ["My flag.png", "report.pdf#page=1", "report.pdf#page=2"]
    expect(page.locator("#answer .asked")).to_contain_text("your 2 files")

    page.get_by_label("Bundled").check()  # other documents: what was shown of these is gone
    expect(page.locator("#documents .card")).to_have_count(0)
    expect(page.locator("#answer q")).to_have_count(0)


def test_bad_files_are_named_with_the_reason_and_the_rest_is_read(visit, tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_bytes(b"")
    (tmp_path / "setup.pdf").write_bytes(b"MZ\x90\x00" + bytes(5000))
    (tmp_path / "good.txt").write_text("The capital of Chad is N'Djamena.")
    (tmp_path / "virus.exe").write_bytes(b"MZ")
    page = visit()
    choose_files(page, *(tmp_path / name for name in ("empty.txt", "setup.pdf", "virus.exe", "good.txt")))
    expect(page.locator(".toast-body").first).to_contain_text("Invalid file type: virus.exe")
    notes = page.locator("#notes")
    expect(notes).to_contain_text("empty.txt: it is empty")
    expect(notes).to_contain_text("setup.pdf: it is a damaged PDF")
    expect(notes).to_contain_text("Documents: 1, from 1 files")
    assert str(tmp_path) not in notes.inner_text()
    assert "--" not in notes.inner_text()


@pytest.mark.parametrize(
    ("question", "source", "message"),
    [
        ("   ", "Bundled", "The question is empty."),
        ("why " * 1100, "Bundled", "4,399 characters"),
        ("Why?", MINE, "No files of yours have been read"),
    ],
)
def test_errors_are_messages(visit, question: str, source: str, message: str) -> None:
    page = visit()
    page.get_by_label(source).check()
    ask(page, question)
    expect(page.locator("#steps [role=alert]")).to_contain_text(message)


def test_an_unforeseen_error_is_a_message_without_details(visit, question: str, monkeypatch) -> None:
    def fail(*_):
        raise RuntimeError("/secret/path")

    page = visit()
    with monkeypatch.context() as patch:
        patch.setattr(lite.rag, "score", fail)
        ask(page, question)
        expect(page.locator("#steps [role=alert]")).to_contain_text("RuntimeError")
        assert "/secret" not in page.content()
    ask(page, question)
    answered(page)


# --------------------------------------------------------------------------------------------------------------- safety


def test_scripts_in_documents_questions_and_names_are_text(visit, tmp_path: Path) -> None:
    (tmp_path / "<img src=x onerror=window.owned=4>.txt").write_text(f"The capital: {ATTACK}")
    (tmp_path / "table.csv").write_text(f'country,capital\n"{ATTACK}",Town\n')
    page = visit()
    choose_files(page, *tmp_path.iterdir())
    ask(page, f"What is the capital of {ATTACK}?")
    answered(page)
    expect(page.locator("#documents .card")).to_have_count(2)
    expect(page.locator("#answer q")).to_contain_text(ATTACK)
    expect(page.locator("#documents")).to_contain_text("<img src=x onerror=window.owned=2>")
    assert page.locator("img[src=x]").count() == 0
    assert page.locator("#result script, #steps script").count() == 0


def test_scripts_in_a_trace_are_text(visit, tmp_path: Path) -> None:
    document = {"id": ATTACK, "kind": ATTACK, "title": ATTACK, "text": ATTACK}
    one = (ATTACK,)
    trace = Trace(
        ATTACK, (document,), one, {ATTACK: 0.5}, one, (), one, f"[1] {ATTACK}", one, one, ATTACK, ATTACK,
        seconds={ATTACK: 1},
    )  # fmt: skip
    malformed = Trace(**trace.__dict__ | {"failure": ATTACK, "cited": ()})
    page = visit()
    open_details(page)
    for name, made in (("good", trace), ("bad", malformed)):
        (tmp_path / f"{name}.json").write_text(made.to_json())
        load_trace(page, tmp_path / f"{name}.json")
        expect(page.locator("#answer .message.bad")).to_have_count(int(name == "bad"))
        expect(answered(page).locator("q")).to_have_text(ATTACK)
        assert page.locator("img[src=x]").count() == 0
    page.locator("#reasoning .cite").first.click()
    expect(page.locator(".card.lit")).to_have_count(1)


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "README.md", "lite/rag.py", "../../etc/passwd", str(SHIPPED / "stage1/lite.json")]
)
def test_no_file_of_the_machine_can_be_fetched(demo: Demo, path: str) -> None:
    for address in (f"/gradio_api/file={path}", f"/file={path}", f"/gradio_api/file%3D{path}", f"/static/{path}"):
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(demo.url + address)
        assert refused.value.code in (403, 404)


def test_the_answer_forbids_the_browser_to_load_from_elsewhere(demo: Demo) -> None:
    with urllib.request.urlopen(demo.url) as reply:
        policy = reply.headers["content-security-policy"]
        assert "googleapis" not in reply.read().decode()
    assert "default-src 'self'" in policy
    assert "http" not in policy


def test_uploads_are_removed_when_the_page_is_closed(visit, demo: Demo, tmp_path: Path) -> None:
    (tmp_path / "private note.txt").write_text("The capital of Chad is N'Djamena.")
    page, other = visit(), visit()
    for visitor in (page, other):
        choose_files(visitor, tmp_path / "private note.txt")
    kept = list(demo.folder.rglob("private note.txt"))
    assert len(kept) == 1  # one copy for both
    other.context.close()
    page.wait_for_timeout(1500)
    assert kept[0].exists()
    page.context.close()
    wait_for(lambda: not kept[0].exists())


def wait_for(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + WAIT / 1000
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)


# --------------------------------------------------------------------------------------------------------- many at once


def test_stop_ends_the_answer_and_frees_the_model(visit, question: str, gate: Gate) -> None:
    page = visit()
    ask(page, question)
    expect(page.locator("#documents .card.kept").first).to_be_visible()
    assert gate.reached.wait(WAIT / 1000)
    expect(page.locator("[role=switch]").first).to_be_disabled()
    page.locator("#stop").click()
    expect(page.locator("#steps [role=alert]")).to_have_text("Stopped.")
    gate.open.set()
    other = visit()
    ask(other, question)
    answered(other)
    expect(page.locator("#steps [role=alert]")).to_have_text("Stopped.")
    ask(page, question)
    answered(page)


def test_a_closed_page_frees_the_model(visit, question: str, gate: Gate) -> None:
    page = visit()
    ask(page, question)
    assert gate.reached.wait(WAIT / 1000)
    page.context.close()
    gate.open.set()
    other = visit()
    ask(other, question)
    answered(other)


def test_ten_users_at_once_are_answered_in_order_from_their_own_documents(
    visit, demo: Demo, tmp_path, gate, monkeypatch
) -> None:
    order: list[str] = []
    asking = Rag.ask_stream

    def noting(self, question, *arguments, **options):
        order.append(question)
        return asking(self, question, *arguments, **options)

    monkeypatch.setattr(Rag, "ask_stream", noting)
    users = [Client(demo.url, verbose=False) for _ in range(10)]
    for n, user in enumerate(users):
        (tmp_path / f"secret{n}.txt").write_text(f"The capital of land {n} is Town{n}x.")
        user.predict([handle_file(tmp_path / f"secret{n}.txt")], api_name="/read")
    jobs = []
    for n, user in enumerate(users):
        jobs.append(user.submit(f"What is the capital of land {n}?", MINE, 0.0, 4, api_name="/ask"))
        wait_for(
            lambda n=n: (
                bool(order) if n == 0 else (jobs[n].status().rank or 0) >= n - 1 and jobs[n].status().rank is not None
            )
        )
    page = visit()
    ask(page, "What is the capital of Chad?")
    expect(page.locator("#steps")).to_contain_text("queue", ignore_case=True)  # and is seen to wait
    gate.open.set()
    for n, job in enumerate(jobs):
        shown = json.dumps(job.result(WAIT / 1000))
        assert f"Town{n}x" in shown
        assert [m for m in range(10) if f"Town{m}x" in shown or f"secret{m}" in shown] == [n]
    answered(page)
    assert order == [*(f"What is the capital of land {n}?" for n in range(10)), "What is the capital of Chad?"]


class Held:
    """Requests of a page that are on their way until let go, as with a server that is slow to answer."""

    def __init__(self, page: Page, address: str):
        self.page, self.address, self.routes = page, address, []
        page.route(address, self.hold)

    def hold(self, route: Route) -> None:
        self.routes.append(route)

    def let_go(self) -> None:
        for route in self.routes:
            route.continue_()
        self.page.unroute(self.address)


def test_what_is_asked_right_after_other_documents_were_chosen_is_answered(visit, question: str) -> None:
    page = visit()
    ask(page, question)
    answered(page)
    held = Held(page, "**/gradio_api/run/**")
    page.get_by_label(MINE).check()
    expect(page.locator("#documents .card")).to_have_count(0)  # before the server has heard of it
    page.get_by_label("Bundled").check()
    ask(page, question)
    page.wait_for_timeout(500)
    held.let_go()
    answered(page)
    expect(page.locator("#answer q")).to_have_text(question)
    page.wait_for_timeout(500)
    expect(page.locator("#documents .card")).not_to_have_count(0)  # no late answer wipes it


def test_a_page_that_was_cleared_cannot_be_asked_again(visit, question: str) -> None:
    page = visit()
    ask(page, question)
    answered(page)
    page.get_by_label(MINE).check()
    page.locator("#again").click()
    expect(page.locator(".toast-body").first).to_contain_text("Ask a question first")
    expect(page.locator("#documents .card")).to_have_count(0)


def test_what_is_asked_right_after_stop_is_answered(visit, question: str, gate: Gate) -> None:
    page = visit()
    ask(page, question)
    assert gate.reached.wait(WAIT / 1000)
    held = Held(page, "**/gradio_api/run/**")
    with page.expect_response("**/gradio_api/cancel"):  # until then the browser takes no second question
        page.locator("#stop").click()
        gate.open.set()
    page.locator("#question textarea").fill("What is the capital of Chad?")
    page.locator("#ask").click()
    expect(page.locator("#answer q")).to_have_text("What is the capital of Chad?")
    held.let_go()
    answered(page)
    expect(page.locator("#answer q")).to_have_text("What is the capital of Chad?")
    expect(page.locator("#steps [role=alert]")).to_have_count(0)


def test_what_is_asked_while_a_trace_is_on_its_way_is_answered(visit, demo: Demo, question: str, tmp_path) -> None:
    (tmp_path / "trace.json").write_text(demo.rag.ask(question, bundled().nearest(question, RETRIEVED)).to_json())
    page = visit()
    open_details(page)
    held = Held(page, "**/gradio_api/run/**")
    load_trace(page, tmp_path / "trace.json")
    wait_for_page(page, lambda: held.routes)
    ask(page, "What is the capital of Chad?")
    expect(page.locator("#answer q")).to_have_text("What is the capital of Chad?")
    held.let_go()
    answered(page)
    expect(page.locator("#answer q")).to_have_text("What is the capital of Chad?")
    load_trace(page, tmp_path / "trace.json")
    expect(page.locator("#answer q")).to_have_text(question)


def wait_for_page(page: Page, condition: Callable[[], object]) -> None:
    until = time.monotonic() + WAIT / 1000
    while not condition():
        assert time.monotonic() < until
        page.wait_for_timeout(50)


def test_the_first_question_on_a_fresh_server_is_answered_however_early(browser: Browser, demo: Demo, tmp_path) -> None:
    """Asked about the library as soon as the page is there, while the model is still loading."""
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "chad.txt").write_text("The capital of Chad is N'Djamena.")
    Library.open(tmp_path / "library", create=True).index(tmp_path / "notes")
    (tmp_path / "uploads").mkdir()
    ready = threading.Event()

    def load(*_) -> Rag:
        assert ready.wait(WAIT / 1000)
        return demo.rag

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Rag, "load", load)
        place = Place(port=free_port())
        server, _ = open_page(tmp_path / "uploads", str(SHIPPED), str(tmp_path / "library"), place, tmp_path)
        context = browser.new_context()
        try:
            page = context.new_page()
            page.goto(place.url)
            page.get_by_label(LIBRARY).check()
            ask(page, "What is the capital of Chad?")
            expect(page.locator("#banner [role=status]")).to_contain_text("The model is loading")
            expect(page.locator("#steps .step.now")).to_contain_text("still loading")
            ready.set()
            answered(page)
            expect(page.locator("#answer .asked")).to_contain_text("from your library of 1 documents")
            expect(page.locator("#answer .message.note")).to_contain_text("knows only flags")
            expect(page.locator("#banner [role=status]")).to_have_count(0)
        finally:
            context.close()
            server.close(verbose=False)


def test_on_a_phone_something_is_seen_to_happen_and_then_the_answer(visit, question: str, gate: Gate) -> None:
    page = visit(viewport={"width": 390, "height": 844}, is_mobile=True, has_touch=True)
    ask(page, question)
    expect(page.locator("#steps .step").first).to_be_in_viewport(ratio=1, timeout=5_000)
    assert gate.reached.wait(WAIT / 1000)
    expect(page.locator("#steps .step.now")).to_be_in_viewport()
    gate.open.set()
    answered(page)
    expect(page.locator("#answer .text")).to_be_in_viewport()


# ---------------------------------------------------------------------------------------------------------------- looks

CONTRAST = """
() => {
  const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const rgba = (colour) => {
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data; return [r, g, b, a / 255];
  };
  const behind = (node) => {
    for (; node; node = node.parentElement) {
      const colour = rgba(getComputedStyle(node).backgroundColor);
      if (colour[3] > 0.95) return colour;
    }
    return [255, 255, 255, 1];
  };
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
    .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const poor = [];
  for (const node of document.querySelectorAll("#banner *, #asking *, #steps *, #result *")) {
    const text = [...node.childNodes].filter((n) => n.nodeType === 3 && n.data.trim()).map((n) => n.data).join("");
    if (!text || !node.checkVisibility({opacityProperty: true, visibilityProperty: true})) continue;
    const [a, b] = [light(rgba(getComputedStyle(node).color)), light(behind(node))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < 4.5) poor.push(`${text.trim().slice(0, 40)}: ${ratio.toFixed(2)}`);
  }
  return poor;
}
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1360, 390])
def test_the_page_is_readable_at_desktop_and_phone_width_light_and_dark(
    visit, question: str, scheme: str, width: int, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    page = visit(viewport={"width": width, "height": 900}, color_scheme=scheme)
    ask(page, question)
    answered(page)
    page.locator("#documents [role=switch]").first.click()
    expect(page.locator("#documents .message.note")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    folder = Path(request.config.getoption("--screenshots") or tmp_path)
    page.screenshot(path=folder / f"demo-{scheme}-{width}.png", full_page=True)
    assert "; ".join(page.evaluate(CONTRAST)) == ""
    page.get_by_role("tab", name="Training runs").click()
    page.locator("#run input").click()
    page.get_by_role("option", name="tiny/stage1").click()
    expect(page.locator("#curves canvas, #curves svg").first).to_be_visible()
    expect(page.locator("#samples .sample").first).to_be_visible()
    expect(page.locator("#tables table")).to_have_count(3)
    page.screenshot(path=folder / f"runs-{scheme}-{width}.png", full_page=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.locator("#run input").click()
    page.get_by_role("option", name="tiny/ablation").click()
    expect(page.locator("#tables table")).to_have_count(2)
    expect(page.locator("#curves")).to_be_hidden()  # it logged nothing: no empty plot
    for region in page.locator("#tables .scroll").all():
        assert region.evaluate("e => e.scrollWidth <= e.clientWidth")  # nothing is cut off
    page.get_by_role("tab", name="Ask").click()
    page.get_by_label(MINE).check()
    label, text = (page.locator(f"#files {part}").bounding_box() for part in ("label", "[data-testid=upload-text]"))
    assert page.locator("#files .icon-wrap").is_hidden()
    assert text["y"] + 20 >= label["y"] + label["height"]
