"""Whose files are whose, what is over a limit, and how much all of them may take on the disk."""

from __future__ import annotations

import os
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from lite.demo import uploads as demo_uploads
from lite.demo.uploads import FILES, Uploads, read


def test_a_file_goes_with_the_last_session_that_holds_it(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a")
    (tmp_path / "b").write_text("b")
    uploads = Uploads(tmp_path)
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


def make(folder: Path, *names: str) -> list[Path]:
    """Files as Gradio keeps them, each in a folder of its own."""
    paths = [folder / f"{n}-{name}" / name for n, name in enumerate(names)]
    for path in paths:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x" * 10)
    return paths


def test_a_session_holds_so_many_files_and_the_rest_is_removed(tmp_path: Path) -> None:
    uploads = Uploads(tmp_path)
    paths = make(tmp_path, *(f"{n}.txt" for n in range(FILES + 5)))
    uploads.hold("one", paths)
    assert [path.exists() for path in paths] == [True] * FILES + [False] * 5
    more = make(tmp_path, "a.txt", "b.txt")
    uploads.add("one", more)  # by the API: what is held stays, and no more is taken
    uploads.forget(SimpleNamespace(session_hash="one"))
    assert not any(path.exists() for path in paths)
    assert all(path.exists() for path in more)


def test_all_sessions_together_hold_so_many_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_uploads, "ALL_FILES", 3)
    uploads = Uploads(tmp_path)
    paths = make(tmp_path, *"abcde")
    for n, path in enumerate(paths):
        uploads.hold(str(n), [path])
    assert [path.exists() for path in paths] == [True] * 3 + [False] * 2


def test_what_nobody_claims_is_removed_soon_and_early_where_it_is_much(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(demo_uploads, "UNCLAIMED", 4)
    uploads = Uploads(tmp_path)
    paths = make(tmp_path, *"abcdefgh")
    now = time.time()
    for n, path in enumerate(paths):
        os.utime(path, (now, now - (demo_uploads.UNCLAIMED_SECONDS + 60 if n < 2 else 20 - n)))
    uploads.hold("one", paths[:1])
    uploads.measure()
    assert [path.exists() for path in paths] == [True, False, False, False, True, True, True, True]
    (tmp_path / "tmpabc").write_bytes(b"what was left of a request that broke off")
    os.utime(tmp_path / "tmpabc", (0, 0))
    uploads.measure()
    assert not (tmp_path / "tmpabc").exists()


def test_one_request_leaves_no_more_files_than_a_session_may_hold(tmp_path: Path) -> None:
    paths = make(tmp_path, *(str(n) for n in range(60)))
    Uploads(tmp_path).landed(paths)
    assert sum(path.exists() for path in paths) == FILES


def test_there_is_room_for_so_much_of_all_visitors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_uploads, "ROOM", 100)
    uploads = Uploads(tmp_path)
    make(tmp_path, "a", "b", "c")
    assert uploads.measure() == 70
    assert uploads.take(50)
    assert uploads.take(20)
    assert not uploads.take(1)
    monkeypatch.setattr(demo_uploads, "SPARE", 2**80)  # a disk that is nearly full
    assert uploads.measure() < 0


def test_no_path_outside_the_folder_is_held_or_removed(tmp_path: Path) -> None:
    (tmp_path / "uploads").mkdir()
    (tmp_path / "mine.txt").write_text("precious")
    uploads = Uploads(tmp_path / "uploads")
    for path in (tmp_path / "mine.txt", tmp_path / "uploads"):
        uploads.hold("one", [path])
        uploads.hold("one", [])
    uploads.landed([tmp_path / "mine.txt"] * 50)
    assert (tmp_path / "mine.txt").read_text() == "precious"
    assert (tmp_path / "uploads").is_dir()
