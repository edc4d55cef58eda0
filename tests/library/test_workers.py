"""Processes that read files: they end with the one that started them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil

READ = """
import sys
from pathlib import Path
from lite.library.readers import Limits
from lite.library.workers import read_files

quick, slow = map(Path, sys.argv[1:])
for path, _ in read_files([quick, slow], False, Limits()):
    print(path.name, flush=True)
"""


def test_readers_end_soon_after_their_parent_is_killed(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("Fine text.")
    (tmp_path / "slow.md").write_text("*a " * 4_000_000 + "\n> " * 20_000)  # hours
    command = [sys.executable, "-c", READ, tmp_path / "a.txt", tmp_path / "slow.md"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout.readline() == "a.txt\n"
        readers = psutil.Process(parent.pid).children(recursive=True)
        parent.kill()
    assert readers
    _, alive = psutil.wait_procs(readers, timeout=10)
    for process in alive:
        process.kill()
    assert not alive
