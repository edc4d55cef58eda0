"""Files that are whole, or named in a sentence."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lite.files import read_json, read_yaml, write_text
from lite.schema import LiteError

ENDLESSLY = """
import sys
from pathlib import Path
from lite.files import write_text
path, n = Path(sys.argv[1]), 0
print("ready", flush=True)
while True:
    n += 1
    write_text(path, "".join(f"line {n}\\n" for _ in range(20_000)))
"""


def test_a_kill_leaves_a_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    for wait in (0.0, 0.01, 0.03, 0.05):
        with subprocess.Popen([sys.executable, "-c", ENDLESSLY, str(path)], stdout=subprocess.PIPE) as writer:
            writer.stdout.readline()
            while not path.exists():
                time.sleep(0.001)
            time.sleep(wait)
            writer.send_signal(signal.SIGKILL)
        lines = path.read_text().splitlines()
        assert len(lines) == 20_000
        assert len(set(lines)) == 1
    write_text(path, "at last\n")
    assert [file.name for file in tmp_path.iterdir()] == ["config.yaml"]


def test_what_did_not_change_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_text(path, "é\n")
    os.utime(path, (1, 1))
    write_text(path, "é\n")
    assert path.stat().st_mtime == 1
    write_text(path, "e\n")
    assert path.read_text() == "e\n"


def test_a_full_disk_leaves_the_file_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.json"
    write_text(path, "old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_text(path, "new")
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("a.json", "old")]


@pytest.mark.parametrize(
    ("read", "content", "message"),
    [
        (read_json, b"", "is not JSON"),
        (read_json, b"{'a': 1}", "is not JSON"),
        (read_json, b'{"a": 1', "is not JSON"),
        (read_json, b"\xff\xfe", "is not JSON"),
        (read_json, b"[" * 200_000, "is not JSON: nested too deeply"),
        (read_json, b"9" * 5000, "is not JSON"),
        (read_yaml, b"a: [1,", "is not YAML"),
        (read_yaml, b"a: !!python/object/apply:os.system ['touch owned']", "is not YAML"),
        (read_yaml, b"a: !!python/tuple [1]", "is not YAML"),
        (read_yaml, b"[" * 5000 + b"]" * 5000, "is not YAML: nested too deeply"),
        (read_yaml, b"".join(b" " * n + b"a:\n" for n in range(5000)), "is not YAML: nested too deeply"),
        (read_yaml, b"? [a]\n: b", "is not YAML"),
        (read_yaml, b"\x00", "is not YAML"),
    ],
)
def test_what_is_broken_is_named(read, content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(content)
    with pytest.raises(LiteError, match=f"f {message}.* Restore the file"):
        read(tmp_path / "f")


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(LiteError, match="gone does not exist"):
        read_json(tmp_path / "gone")
    with pytest.raises(LiteError, match="cannot be read: Is a directory"):
        read_yaml(tmp_path)
    (tmp_path / "whole.json").write_text(json.dumps({"a": [1, None]}))
    assert read_json(tmp_path / "whole.json") == read_yaml(tmp_path / "whole.json") == {"a": [1, None]}
