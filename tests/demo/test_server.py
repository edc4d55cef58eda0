"""Around the page: options, whose files are whose, which documents a question is asked about, loaded traces."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from lite.demo import app as demo
from lite.demo import server as demo_command
from lite.demo import uploads as demo_uploads
from lite.demo.uploads import Uploads, read
from lite.rag import RETRIEVED, Rag
from lite.runs import SHIPPED
from lite.schema import Document, LiteError

ROOT = Path(__file__).parents[2]


# -------------------------------------------------------------------------------------------------------------- uploads


def test_a_file_goes_with_the_last_session_that_holds_it(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a")
    (tmp_path / "b").write_text("b")
    uploads = Uploads()
    uploads.hold("one", [tmp_path / "a", tmp_path / "b"])
    uploads.hold("two", [tmp_path / "a"])
    uploads.hold("one", [tmp_path / "a"])  # b was taken out
    assert not (tmp_path / "b").exists()
    uploads.forget(SimpleNamespace(session_hash="one"))
    assert (tmp_path / "a").exists()
    uploads.forget(SimpleNamespace(session_hash="two"))
    uploads.forget(SimpleNamespace(session_hash="two"))
    assert not (tmp_path / "a").exists()


def test_files_of_one_name_are_told_apart_and_no_folder_is_named(tmp_path: Path) -> None:
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "notes.txt").write_text(f"Notes of {folder}.")
    first, problems = read([str(tmp_path / "x" / "notes.txt")], {})
    both, more = read([str(tmp_path / folder / "notes.txt") for folder in ("x", "y")], first)
    ids = [document.id.split("#")[0] for documents in both.values() for document in documents]
    assert ids == ["notes.txt", "notes.txt (2)"]
    assert both[str(tmp_path / "x" / "notes.txt")] is first[str(tmp_path / "x" / "notes.txt")]  # not read again
    assert problems == more == []
    left, _ = read([str(tmp_path / "y" / "notes.txt")], both)
    assert len(left) == 1


def test_what_is_over_a_limit_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for n in range(3):
        (tmp_path / f"{n}.csv").write_text("a,b\n" + "one,two words\n" * 400)
    (tmp_path / "virus.exe").write_bytes(b"MZ")
    paths = [str(tmp_path / name) for name in ("0.csv", "1.csv", "2.csv", "virus.exe")]
    monkeypatch.setattr(demo_uploads, "FILES", 3)
    found, problems = read(paths, {})
    assert problems == ["Only 3 files are taken; 1 were left out."]
    monkeypatch.setattr(demo_uploads, "FILES", 4)
    parts = len(found[paths[0]])
    assert parts > 2
    monkeypatch.setattr(demo_uploads, "DOCUMENTS", parts + 1)
    found, problems = read(paths, {})
    assert [len(documents) for documents in found.values()] == [parts, 1]
    assert problems[0] == "virus.exe: this kind of file is not read."
    assert any("only 1 of its" in problem for problem in problems)


# ------------------------------------------------------------------------------------------------------------ documents


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
    with pytest.raises(LiteError, match="no files of yours"):
        demo.look_up("Why?", demo.MINE, None, {})


def test_untouched_sliders_are_the_tuned_filter(rag: Rag) -> None:
    rag.stage1["threshold"] = 0.019752411972251156
    assert demo.settings(rag, 0.02, 5) == (0.019752411972251156, 5)
    assert demo.settings(rag, 0.021, 99) == (0.021, rag.budget)


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


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"\xff\xfe", b'{"question": "q"}', b"[" * 100_000])
def test_what_is_no_trace_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "trace.json").write_bytes(content)
    with pytest.raises(LiteError, match="trace"):
        demo.loaded(tmp_path / "trace.json")


# -------------------------------------------------------------------------------------------------------------- command


def test_shipped_adapters_are_named_so() -> None:
    assert demo_command.adapters_in_words("tiny") == "shipped with lite"


def test_a_run_is_named_without_its_place(run: Path) -> None:
    assert demo_command.adapters_in_words(str(run)) == f"your run “{run.name}”"


def test_wrong_options_are_refused(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        demo_command.demo(["--auth", "me"])
    assert "USER:PASSWORD" in capsys.readouterr().err


def test_a_taken_port_and_a_missing_library_say_what_to_do(rag: Rag, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(Rag, "load", lambda *_: rag)
    with pytest.raises(LiteError, match="There is no library"):
        demo_command.start(tmp_path, library=str(tmp_path / "none"))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(LiteError, match="another --port"):
            demo_command.start(tmp_path, str(SHIPPED), port=taken.getsockname()[1])


def test_a_wide_address_without_a_password_is_warned_about(monkeypatch, caplog) -> None:
    def stop(*_):
        raise LiteError("enough")

    monkeypatch.setattr(demo_command, "start", stop)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    for arguments, warned in (
        (["--host", "0.0.0.0"], True),
        (["--host", "0.0.0.0", "--auth", "a:b"], False),
        ([], False),
    ):
        caplog.clear()
        with pytest.raises(LiteError, match="enough"):
            demo_command.demo(arguments)
        assert ("--auth" in caplog.text) == warned


def test_with_a_password_nothing_is_shown_without_it(rag: Rag, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(Rag, "load", lambda *_: rag)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    page = demo_command.start(tmp_path, str(SHIPPED), port=port, auth=("me", "secret"), runs=tmp_path)
    try:
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/config")
        assert refused.value.code == 401
        browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
        form = urllib.parse.urlencode({"username": "me", "password": "secret"}).encode()
        browser.open(f"http://127.0.0.1:{port}/login", form)
        assert browser.open(f"http://127.0.0.1:{port}/config").status == 200
    finally:
        page.close(verbose=False)


@pytest.mark.slow
def test_app_py_opens_and_leaves_nothing_behind(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, ROOT / "app.py", "--port", str(port)], stdout=subprocess.PIPE, text=True, cwd=tmp_path,
        env=os.environ | {"TMPDIR": str(tmp_path)},
    )  # fmt: skip
    try:
        assert f"http://127.0.0.1:{port}" in process.stdout.readline()
        assert list(tmp_path.glob("lite-demo-*"))
        with urllib.request.urlopen(f"http://127.0.0.1:{port}") as reply:
            assert "lite" in reply.read().decode()
    finally:
        process.terminate()
    assert process.wait(60) == 0
    assert list(tmp_path.glob("lite-demo-*")) == []
