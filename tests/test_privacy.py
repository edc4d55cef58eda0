"""Nothing leaves the machine that was not asked for."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SWITCHES = (
    "HF_HUB_OFFLINE",
    "HF_HUB_DISABLE_TELEMETRY",
    "DISABLE_TELEMETRY",
    "DO_NOT_TRACK",
    "GRADIO_ANALYTICS_ENABLED",
)


def connections(tmp_path: Path, *arguments: str) -> str:
    """What a Python process tried to reach, with none of the switches of this shell."""
    noted = tmp_path / "connections.txt"
    environment = {name: value for name, value in os.environ.items() if name not in SWITCHES}
    environment |= {
        "PYTHONPATH": f"{ROOT / 'benchmarks' / 'sockets'}{os.pathsep}{ROOT}", "CONNECTIONS": str(noted),
        "HF_HOME": str(tmp_path / "hub"), "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, *arguments], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return noted.read_text() if noted.exists() else ""


SENDING = (
    "from huggingface_hub.utils import send_telemetry, build_hf_headers; send_telemetry('trl'); build_hf_headers()"
)
WAITING = "import time; time.sleep(1)"


@pytest.mark.parametrize("first", ["import lite", "import huggingface_hub.constants, lite"])
def test_importing_lite_stops_what_libraries_send(first: str, tmp_path: Path) -> None:
    assert connections(tmp_path, "-c", f"{first}; {SENDING}; {WAITING}") == ""


def test_the_watch_sees_what_is_sent(tmp_path: Path) -> None:
    assert "socket.getaddrinfo\thuggingface.co" in connections(tmp_path, "-c", f"{SENDING}; {WAITING}")


def test_gradio_counts_nobody(tmp_path: Path) -> None:
    code = "import lite, gradio; assert not gradio.Blocks().analytics_enabled"
    assert connections(tmp_path, "-c", code) == ""


@pytest.mark.slow
def test_training_reaches_nobody(tmp_path: Path) -> None:
    recipe = str(ROOT / "recipes" / "tiny" / "stage1.yaml")
    settings = ["--max_steps", "1", "--limit", "8", "--output_dir", str(tmp_path / "stage1"), "--report_to", "none"]
    assert connections(tmp_path, "-m", "lite.cli", "train", "stage1", "--config", recipe, *settings) == ""
