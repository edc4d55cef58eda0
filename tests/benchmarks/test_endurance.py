"""The harness of bad days itself: what it watches is seen, and its short form passes."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks import endurance

ROOT = Path(__file__).parents[2]


def test_what_leaves_the_machine_is_noted(tmp_path: Path) -> None:
    endurance.run(["-c", "import socket; socket.create_server(('127.0.0.1', 0))"], tmp_path)
    assert not (tmp_path / "connections.txt").exists()
    code = "import socket\ntry: socket.getaddrinfo('name.invalid', 443)\nexcept OSError: pass"
    endurance.run(["-c", f"import subprocess, sys; subprocess.run([sys.executable, '-c', {code!r}])"], tmp_path)
    assert (tmp_path / "connections.txt").read_text().startswith("socket.getaddrinfo\tname.invalid\t")


def test_nothing_is_left_of_a_process_that_is_killed(tmp_path: Path) -> None:
    code = "import subprocess, sys; p = subprocess.Popen(['sleep', '600']); print(p.pid, flush=True); p.wait()"
    with endurance.started(["-c", code], tmp_path) as process:
        child = int(process.stdout.readline())
    deadline = time.monotonic() + 20
    while is_running(child) and time.monotonic() < deadline:
        time.sleep(0.05)  # the system ends it a moment later
    assert not is_running(child)


def is_running(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().split()[2] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.slow
@pytest.mark.parametrize("part", list(endurance.PARTS))
def test_a_bad_day_breaks_nothing(part: str) -> None:
    command = [sys.executable, "-m", "benchmarks.endurance", "--quick", "--only", part]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=3 * endurance.LIMIT)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    report = json.loads(done.stdout.splitlines()[-1].partition(": ")[2])
    assert report["same"]
    assert report["reached"] == []
