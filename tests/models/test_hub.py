"""A model's name becomes a folder, or one sentence with a way on: within seconds, and before gigabytes move."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from lite.models.hub import find_model, is_model
from lite.runs import TINY
from lite.schema import LiteError

FILES = {"config.json": b'{"model_type": "smolvlm", "vision_config": {}}', "model.safetensors": b"x" * 2_000_000}
REPOSITORIES = {
    "some/vlm": FILES,
    "some/text": FILES | {"config.json": b'{"model_type": "llama"}'},
    "some/adapter": {"adapter_config.json": b"{}", "adapter_model.safetensors": b"x"},
    "some/gguf": {"model.gguf": b"x"},
}
LOOK_UP = """
import sys
from lite.models.hub import download, find_model
from lite.schema import LiteError
try:
    found = find_model(sys.argv[1])
    print(found.missing, sorted(path.name for path in download(found).iterdir()))
except LiteError as error:
    print("refused:", error)
print("torch" in sys.modules)
"""


class Hub(BaseHTTPRequestHandler):
    """As much of the hub's interface as a look-up and a download use."""

    def do_GET(self):
        self.answer(body=True)

    def do_HEAD(self):
        self.answer(body=False)

    def answer(self, body: bool) -> None:
        kind, _, rest = self.path.split("?")[0].lstrip("/").partition("/")
        if kind == "api":
            name = "/".join(rest.split("/")[1:3])
            files = REPOSITORIES.get(name)
            sizes = {file: len(text) for file, text in (files or {}).items()}
            info = {"id": name, "sha": "0" * 40}
            info["siblings"] = [{"rfilename": file, "size": size} for file, size in sizes.items()]
            tree = [{"type": "file", "path": file, "size": size, "oid": "0"} for file, size in sizes.items()]
            content = json.dumps(tree if "/tree/" in self.path else info).encode() if files else None
        elif not kind:  # whether the hub answers at all
            content = b"hub"
        else:
            owner, name, _, _, file = self.path.split("?")[0].lstrip("/").split("/")
            content = REPOSITORIES.get(f"{owner}/{name}", {}).get(file)
        self.send_response(404 if content is None else 200)
        self.send_header("Content-Length", str(len(content or b"")))
        self.send_header("ETag", f'"{len(content or b"")}"')
        self.send_header("X-Repo-Commit", "0" * 40)
        if content is None:
            self.send_header("X-Error-Code", "RepoNotFound" if kind == "api" else "EntryNotFound")
        self.end_headers()
        if body and content:
            self.wfile.write(content)

    def log_message(self, *_) -> None:
        pass


@pytest.fixture
def hub() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def look_up(name: str, endpoint: str, home: Path, **environment: str) -> subprocess.CompletedProcess:
    kept = {key: value for key, value in os.environ.items() if key != "HF_HUB_OFFLINE"}
    kept |= {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", **environment}
    return subprocess.run(
        [sys.executable, "-c", LOOK_UP, name], env=kept, capture_output=True, text=True, timeout=300, check=True
    )


def test_a_model_is_downloaded_once_and_its_size_is_told_before(hub: str, tmp_path: Path) -> None:
    done = look_up("some/vlm", hub, tmp_path)
    assert "Downloading some/vlm: 2.0 MB, once, to" in done.stderr
    assert "['config.json', 'model.safetensors']" in done.stdout
    again = look_up("some/vlm", hub, tmp_path)
    assert again.stdout.startswith("0 [")
    assert "Downloading" not in again.stderr
    offline = look_up("some/vlm", "http://127.0.0.1:9", tmp_path)
    assert offline.stdout.startswith("0 [")  # what is on the machine needs no hub


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("some/nothing", "There is no model some/nothing on the Hugging Face hub"),
        ("some/text", "some/text is a model for text alone (llama)"),
        ("some/adapter", "some/adapter on the hub holds an adapter"),
        ("some/gguf", "some/gguf on the hub holds no model that transformers reads"),
    ],
)
def test_what_is_no_model_is_refused_before_its_weights_move(hub: str, tmp_path: Path, name, message) -> None:
    done = look_up(name, hub, tmp_path)
    assert f"refused: {message}" in done.stdout
    assert "laptop" in done.stdout  # a way on
    assert done.stdout.splitlines()[-1] == "False"  # torch was not needed to say so
    assert not list(tmp_path.rglob("*.safetensors"))


def test_a_hub_that_is_off_or_silent_is_given_up_soon(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts, and never answers
        start = time.monotonic()
        done = look_up("some/vlm", f"http://127.0.0.1:{silent.getsockname()[1]}", tmp_path)
        assert time.monotonic() - start < 60  # 5 of them waiting; the rest is a busy machine's start
    assert "some/vlm is not on this machine, and the Hugging Face hub cannot be reached" in done.stdout
    gone = look_up("some/vlm", "http://127.0.0.1:9", tmp_path, HF_HUB_OFFLINE="0")
    assert "the Hugging Face hub cannot be reached" in gone.stdout
    offline = look_up("some/vlm", "http://127.0.0.1:9", tmp_path, HF_HUB_OFFLINE="1")
    assert "HF_HUB_OFFLINE is set" in offline.stdout
    assert "--model FOLDER" in offline.stdout


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "holds no config.json"),
        ({"config.json": "{"}, "its config.json cannot be read"),
        ({"config.json": "[]"}, "holds no JSON object"),
        ({"config.json": '{"model_type": "llama"}'}, "a model for text alone (llama)"),
        ({"config.json": "{}"}, "a model for text alone"),
        ({"config.json": '{"model_type": "smolvlm", "vision_config": {}}'}, "holds no weights"),
        ({"adapter_config.json": '{"base_model_name_or_path": "a/b"}'}, "is an adapter for a/b, not a model"),
        ({"adapter_config.json": "{}", "lite.json": "{}"}, "Give its run with --profile"),
    ],
)
def test_a_folder_that_is_no_model_says_what_it_is(tmp_path: Path, files: dict[str, str], message: str) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(LiteError, match=message.replace("(", r"\(").replace(")", r"\)")):
        find_model(str(tmp_path))


def test_a_file_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    with pytest.raises(LiteError, match="is a file"):
        find_model(str(tmp_path / "model.gguf"))


def test_names_that_mean_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    assert all(is_model(name) for name in ("laptop", "Qwen/Qwen3-VL-2B-Instruct", str(TINY)))
    assert not any(is_model(name) for name in ("tiny", "qwen3-vl-4b", "runs/mistyped", "/nowhere/at/all", "a/b/c", ""))
