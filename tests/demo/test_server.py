"""Around the page: options, who may reach it, and what nobody may do to it. How it looks: test_browser.py."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from lite.demo import guard
from lite.demo import server as demo_command
from lite.demo import uploads as demo_uploads
from lite.demo.server import Place
from lite.rag import Rag
from lite.runs import SHIPPED
from lite.schema import LiteError
from lite.web import own_names

ROOT = Path(__file__).parents[2]


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def request(port: int, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, bytes]:
    """Status and body; a header's name has _ for -."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
    reply = connection.getresponse()
    return reply.status, reply.read()


def multipart(*files: tuple[str, bytes]) -> tuple[bytes, str]:
    """A body with these files, and its type."""
    parts = [
        b'--edge\r\nContent-Disposition: form-data; name="files"; filename="%s"\r\n\r\n%s\r\n' % (name.encode(), data)
        for name, data in files
    ]
    return b"".join(parts) + b"--edge--\r\n", "multipart/form-data; boundary=edge"


class Served:
    def __init__(self, folder: Path):
        self.folder, self.port = folder, free_port()

    def upload(self, *files: tuple[str, bytes], **headers: str) -> tuple[int, bytes]:
        body, kind = multipart(*files)
        return request(self.port, "POST", "/gradio_api/upload", body, Content_Type=kind, **headers)

    def call(self, name: str, *data) -> str:
        """What an event of the API ends with."""
        body = json.dumps({"data": data}).encode()
        status, reply = request(self.port, "POST", f"/gradio_api/call/{name}", body, Content_Type="application/json")
        assert status == 200, reply
        return request(self.port, "GET", f"/gradio_api/call/{name}/{json.loads(reply)['event_id']}")[1].decode()

    @property
    def files(self) -> list[Path]:
        return [path for path in self.folder.rglob("*") if path.is_file()]


@pytest.fixture(scope="module")
def served(loaded: Rag, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The page on this machine's address, and its folder of uploads."""
    running = Served(tmp_path_factory.mktemp("uploads"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Rag, "load", lambda *_: loaded)
        place = Place(port=running.port, allowed_hosts=("demo.example.org",))
        page = demo_command.start(running.folder, str(SHIPPED), place=place, runs=running.folder)
        yield running
        page.close(verbose=False)


# -------------------------------------------------------------------------------------------------------------- command


def test_shipped_adapters_are_named_so() -> None:
    assert demo_command.make_desk("tiny", None).adapters == "shipped with lite"


def test_a_run_is_named_without_its_place(run: Path) -> None:
    assert demo_command.make_desk(str(run), None).adapters == f"your run “{run.name}”"


def test_wrong_options_are_refused(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        demo_command.demo(["--auth", "me"])
    assert "USER:PASSWORD" in capsys.readouterr().err


def test_a_taken_port_and_a_missing_library_say_what_to_do(rag: Rag, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(Rag, "load", lambda *_: rag)
    with pytest.raises(LiteError, match="There is no library"):
        demo_command.start(tmp_path, library=str(tmp_path / "none"), place=Place(port=free_port()))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(LiteError, match="another --port"):
            demo_command.start(tmp_path, str(SHIPPED), place=Place(port=taken.getsockname()[1]))


def test_a_wide_address_without_a_password_is_warned_about(monkeypatch, caplog) -> None:
    def stop(*_, **__):
        raise LiteError("enough")

    monkeypatch.setattr(demo_command, "open_page", stop)
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
    monkeypatch.setattr(guard, "LONGEST_WAIT", 1.0)
    place = Place(port=free_port(), auth=("me", "secret"))
    page = demo_command.start(tmp_path, str(SHIPPED), place=place, runs=tmp_path)
    try:
        for path in ("/config", "/gradio_api/info", "/gradio_api/queue/data?session_hash=x", "/gradio_api/file=x"):
            assert request(place.port, "GET", path)[0] == 401, path
        assert b'"components":[]' in request(place.port, "GET", "/")[1].replace(b" ", b"")
        browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())

        def log_in(password: str) -> float:
            form = urllib.parse.urlencode({"username": "me", "password": password}).encode()
            start = time.monotonic()
            with contextlib.suppress(urllib.error.HTTPError):
                browser.open(f"{place.url}/login", form)
            return time.monotonic() - start

        wrong = [log_in(f"guess {n}") for n in range(5)]
        assert wrong[-1] >= 1.0 > min(wrong[:3])
        assert log_in("secret") >= 1.0  # or the right one could be told by its speed
        assert browser.open(f"{place.url}/config").status == 200
        assert log_in("secret") < 1.0
    finally:
        page.close(verbose=False)


@pytest.mark.slow
def test_app_py_opens_and_leaves_nothing_behind(tmp_path: Path) -> None:
    port = free_port()
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


# --------------------------------------------------------------------------------------------------------------- others


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:{port}", "localhost.evil.example", "127.0.0.1.nip.io", "10.0.0.1", "[::2]:{port}",
     "evil.example@localhost", "localhost evil.example", "localhost/evil", "", "[::1", "0x7f.1"],
)  # fmt: skip
def test_a_page_of_this_machine_is_not_served_under_another_name(served: Served, host: str) -> None:
    """Such a name can be pointed here by whoever owns it, and then its page reads this one (DNS rebinding)."""
    for method, path in (("GET", "/"), ("GET", "/config"), ("POST", "/gradio_api/queue/join"), ("GET", "/assets/x")):
        status, reply = request(served.port, method, path, Host=host.format(port=served.port))
        assert status in (400, 403), (method, path)
        assert b"countries" not in reply


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:{port}", "127.0.0.1:{port}", "[::1]:1", "demo.example.org"])
def test_it_is_served_under_its_own_and_permitted_names(served: Served, host: str) -> None:
    assert request(served.port, "GET", "/config", Host=host.format(port=served.port))[0] == 200


@pytest.mark.parametrize(
    "origin",
    ["http://evil.example", "null", "http://localhost:{port}", "http://127.0.0.1", "http://127.0.0.1:1", "file://",
     "chrome-extension://127.0.0.1:{port}", "http://demo.example.org.evil.example", ""],
)  # fmt: skip
def test_what_another_page_sends_is_refused_uploads_too(served: Served, origin: str) -> None:
    origin = origin.format(port=served.port)
    before = served.files
    assert served.upload(("x.txt", b"from elsewhere"), Origin=origin)[0] == 403
    assert served.files == before
    for path in ("/gradio_api/queue/join", "/gradio_api/call/ask", "/login"):
        assert request(served.port, "POST", path, b"{}", Origin=origin)[0] == 403, path


@pytest.mark.parametrize(
    "origin", ["http://127.0.0.1:{port}", "https://demo.example.org", "http://demo.example.org:81"]
)
def test_what_its_own_page_sends_is_taken_from_behind_a_proxy_too(served: Served, origin: str) -> None:
    assert served.upload(("x.txt", origin.encode()), Origin=origin.format(port=served.port))[0] == 200


def test_a_page_for_the_network_is_served_under_any_address_and_its_own_names_only(tmp_path: Path) -> None:
    place = Place("0.0.0.0")
    names = own_names(place.host)
    watch = guard.Guard(None, names, frozenset(), True, "", demo_uploads.Uploads(tmp_path))
    for host in ("192.168.1.7:7860", "10.0.0.1", "[fe80::1]:7860", "localhost:7860", socket.gethostname()):
        assert watch._known(host), host
    for host in ("evil.example", "192.168.1.7.nip.io", "", "1.2.3"):
        assert not watch._known(host), host


@pytest.mark.parametrize(
    "path",
    ["/openapi.json", "/docs", "/redoc", "/gradio_api/openapi.json", "/gradio_api/proxy=http://example.org/x",
     "/gradio_api/deep_link?session_hash=x", "/gradio_api/custom_component/a/client/b/c", "/monitoring",
     "/gradio_api/vibe-code", "/gradio_api/runs", "/gradio_api/stream/x", "/gradio_api/dev/reload"],
)  # fmt: skip
def test_what_the_page_does_not_need_is_not_served(served: Served, path: str) -> None:
    for method in ("GET", "POST"):
        assert request(served.port, method, path)[0] == 404


def test_nothing_is_fetched_for_whoever_reaches_the_page(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = []
    real = socket.getaddrinfo

    def look_up(host, *arguments, **options):
        if host in ("127.0.0.1", "localhost"):
            return real(host, *arguments, **options)
        wanted.append(host)
        raise OSError("no network")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    urls = ("http://example.org/a.png", "https://example.org/a.png", "HTTP://93.184.215.14/a.png")
    for url in urls:
        for path in (
            f"file={url}",
            f"file%3D{url}",
            f"file/{url}",
            f"file= {url}",
            f"proxy={url}",
            f"file={url.upper()}",
        ):
            assert request(served.port, "GET", f"/gradio_api/{path.replace(' ', '%20')}")[0] in (403, 404), path
        file = {"path": url, "url": url, "orig_name": "a.png", "meta": {"_type": "gradio.FileData"}}
        assert "event: error" in served.call("read", [file])
        for data in ((file, "Bundled", 0.1, 2), ("Why?", file, 0.1, 2), ("Why?", "Bundled", file, 2), ([file],) * 4):
            served.call("ask", *data)
    assert wanted == []


def test_an_upload_is_bounded_in_number_and_size_on_the_disk_too(served: Served, monkeypatch) -> None:
    before = set(served.files)
    status, reply = served.upload(*((f"{n}.txt", b"%d" % n) for n in range(300)))
    assert status == 200
    wait_for(lambda: len(set(served.files) - before) == demo_uploads.FILES)
    assert "Only 20 files are taken; 280 were left out" in served.call("read", [as_file(p) for p in json.loads(reply)])

    monkeypatch.setattr(demo_uploads, "ROOM", sum(path.stat().st_size for path in served.files) + 3_000_000)
    assert served.upload(("a.txt", bytes(2_000_000)))[0] == 200
    status, reply = served.upload(("b.txt", b"b" * 2_000_000))
    assert status == 507
    assert b"no room" in reply
    with socket.create_connection(("127.0.0.1", served.port)) as chunked:  # its size is not told beforehand
        chunked.sendall(
            b"POST /gradio_api/upload HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n"
            b"Content-Type: multipart/form-data; boundary=edge\r\n\r\n"
        )
        body, _ = multipart(("c.txt", b"c" * 2_000_000))
        with contextlib.suppress(OSError):
            for start in range(0, len(body), 100_000):
                piece = body[start : start + 100_000]
                chunked.sendall(b"%x\r\n%s\r\n" % (len(piece), piece))
        assert b"507" in chunked.recv(1000)
    monkeypatch.setattr(guard, "REQUEST", 1000)
    assert served.upload(("d.txt", bytes(2000)))[0] == 413


def test_one_file_that_is_too_large_refuses_itself_alone(served: Served) -> None:
    large = bytes(demo_uploads.LIMITS.megabytes * 10**6 + 1)
    status, reply = served.upload(("large.txt", large), ("good.txt", b"The capital of Chad is N'Djamena."))
    assert status == 200
    read = served.call("read", [as_file(path) for path in json.loads(reply)])
    assert "large.txt: it has 51 MB; the limit is 50 MB." in read
    assert "Documents: 1, from 1 files" in read


def test_one_wrong_kind_in_a_batch_refuses_that_file_alone(served: Served) -> None:
    _, reply = served.upload(("virus.exe", b"MZ"), ("good.txt", b"The capital of Chad is N'Djamena."), ("noend", b"x"))
    read = served.call("read", [as_file(path) for path in json.loads(reply)])
    assert "Documents: 1, from 1 files" in read
    assert "virus.exe: this kind of file is not read" in read
    assert "noend: this kind of file is not read" in read


def as_file(path: str) -> dict:
    return {"path": path, "meta": {"_type": "gradio.FileData"}}


def wait_for(condition) -> None:
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)


def test_half_a_surrogate_pair_in_a_question_is_no_error(served: Served) -> None:
    asked = served.call("ask", "What is the capital of \ud800 Chad\x1b[31m?", "Bundled flags and countries", 0.0, 2)
    assert "event: complete" in asked
    assert "went wrong" not in asked
