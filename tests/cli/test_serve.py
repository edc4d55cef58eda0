"""`lite serve` as it is started: options, and how it ends."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from lite.cli import main as cli
from lite.cli.serve import public_name
from lite.library.store import Library

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("served") / "notes"
    folder.mkdir()
    (folder / "Chad.txt").write_text("The capital of Chad is N'Djamena.")
    Library.open(folder.parent / "library", create=True).index(folder)
    return str(folder.parent / "library")


@contextmanager
def started(*arguments: str, **environment: str) -> Iterator[tuple[subprocess.Popen, str]]:
    """The command in a process of its own, and the address that it prints."""
    process = subprocess.Popen(
        [sys.executable, "-m", "lite", "serve", "--port", "0", *arguments], cwd=ROOT, text=True,
        env=os.environ | environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        yield process, re.search(r"http://\S+", process.stdout.readline())[0]
    finally:
        process.kill()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_answers_and_ends_in_the_middle_of_a_stream(number: int, library: str) -> None:
    with started("--library", library, "--profile", "tiny", LITE_API_KEY="k") as (process, address):
        for line in process.stderr:
            if "ready" in line:
                break
        threading.Thread(target=process.stderr.read, daemon=True).start()
        assert httpx.get(f"{address}/models").status_code == 401
        body = {"stream": True, "messages": [{"role": "user", "content": "What is the capital of Chad?"}]}
        key = {"authorization": "Bearer k"}
        with httpx.stream("POST", f"{address}/chat/completions", json=body, headers=key, timeout=60) as reply:
            lines = (line for line in reply.iter_lines() if line)
            assert json.loads(next(lines).removeprefix("data: "))["model"] == "tiny"
            process.send_signal(number)
            assert list(lines)[-1] == "data: [DONE]"
        assert process.wait(20) == 0


def test_other_machines_need_a_key(library: str, monkeypatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.delenv("LITE_API_KEY", raising=False)
    assert cli.main(["serve", "--library", library, "--profile", "tiny", "--host", "0.0.0.0"]) == 1
    assert "LITE_API_KEY" in capsys.readouterr().err


@pytest.mark.parametrize("key", ["", " k", "ключ", "a\nb"])
def test_a_key_that_cannot_be_sent_is_refused(key: str, library: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        cli.main(["serve", "--library", library, "--api_key", key])
    assert "--api_key" in capsys.readouterr().err


def test_a_model_must_be_named(library: str, capsys: pytest.CaptureFixture) -> None:
    assert cli.main(["serve", "--library", library]) == 1
    assert "--model laptop" in capsys.readouterr().err


def test_a_missing_library_shows_at_once(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert cli.main(["serve", "--library", str(tmp_path / "none"), "--profile", "tiny"]) == 1
    assert "There is no library" in capsys.readouterr().err


@pytest.mark.slow
def test_a_model_that_cannot_be_loaded_ends_the_server(library: str) -> None:
    with started("--library", library, "--profile", "runs/nothing") as (process, _):
        assert process.wait(60) == 1
        assert "neither a run folder" in process.stderr.read()


def test_clients_see_no_path(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "runs" / "mine" / "stage2" / "adapter").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    for name in ("runs/mine", "runs/mine/stage2", str(tmp_path / "runs/mine/stage2/adapter")):
        assert public_name(name) == "mine"
    assert public_name("Qwen/Qwen3-VL-2B-Instruct") == "Qwen/Qwen3-VL-2B-Instruct"
