"""A hub that does not answer costs seconds."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

LOADING = """
import logging, sys
logging.basicConfig()
import lite
import lite.hub
lite.hub.SECONDS = 1
from huggingface_hub import constants
{code}
print(constants.HF_HUB_OFFLINE)
"""


def run(code: str, endpoint: str, tmp_path: Path) -> tuple[str, str, float]:
    """Printed, logged, and how long it took."""
    environment = {"HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path), "PATH": "", "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = str(Path(__file__).parents[1])
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", LOADING.format(code=code)], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout, done.stderr, time.monotonic() - start


@pytest.fixture
def silent() -> str:
    """The address of a server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=50) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def closed() -> str:
    """An address where nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    return f"http://127.0.0.1:{port}"


@pytest.mark.parametrize("kind", ["silent", "closed"])
def test_a_hub_that_does_not_answer_is_given_up(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    endpoint = request.getfixturevalue(kind)
    code = "lite.hub.give_up_early('some/model')\nlite.hub.give_up_early('some/other')"
    out, err, seconds = run(code, endpoint, tmp_path)
    assert out == "True\n"
    assert err.count("does not answer") == 1
    assert seconds < 20


def test_nothing_is_asked_for_a_local_folder(closed: str, tmp_path: Path) -> None:
    assert run(f"lite.hub.give_up_early({str(tmp_path)!r})", closed, tmp_path)[:2] == ("False\n", "")


@pytest.mark.slow
@pytest.mark.parametrize(
    "code",
    [
        "from lite.library.embedding import embedding_size\n"
        "try: embedding_size('some/model')\nexcept lite.LiteError as error: assert 'Cannot load' in str(error)",
        "from lite.models.loading import load_model\nfrom lite.config.model import ModelConfig\n"
        "try: load_model(ModelConfig('some/model'))\nexcept lite.LiteError as error: assert 'no network' in str(error)",
        "from lite.cli.main import main\nimport contextlib, io\nwith contextlib.redirect_stdout(io.StringIO()):\n"
        "    assert main(['train', 'stage1', '--config', 'recipes/tiny/stage1.yaml', '--dry_run', 'true', '--limit', "
        "'9', '--model_name_or_path', 'some/model']) == 0",
    ],
    ids=["embedding", "model", "dry run"],
)
def test_what_waits_for_the_hub_waits_seconds(code: str, silent: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(Path(__file__).parents[1])
    out, _, seconds = run(code, silent, tmp_path)
    assert out == "True\n"
    assert seconds < 90  # most of it imports
