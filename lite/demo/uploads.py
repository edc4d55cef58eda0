"""Files that visitors of the demo upload: bounded in number and size, known to their session only, removed with it."""

from __future__ import annotations

import re
import shutil
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import gradio as gr

from lite.library.ocr import ocr_installed
from lite.library.parts import Limits, Unreadable
from lite.library.readers import SUFFIXES, as_document
from lite.library.workers import read_files
from lite.schema import Document

FILES = 20  # per session
DOCUMENTS = 300  # per session, for they are kept in memory; a page of a PDF is one
LIMITS = Limits(megabytes=50, megapixels=50, pages=300, seconds=60, gigabytes=4)
ROOM = 10 * 10**9  # bytes of all visitors together
SPARE = 10**9  # bytes that stay free on the disk
ALL_FILES = 1000  # of all sessions together
UNCLAIMED, UNCLAIMED_SECONDS = 100, 300  # files that no session holds: how many, and how long, they are kept


class Uploads:
    """Which sessions hold which uploaded files, and how much more may come.

    Gradio keeps one copy of files with the same content and name, whoever uploads them: a file is removed with the last
    session that holds it. The browser claims what it uploaded at once; what nobody claims is removed soon.

    Args:
        folder: Where Gradio keeps uploads; nothing else is in it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._held: dict[Path, set[str]] = {}
        self._lock = threading.Lock()
        self._free = 0

    # ------------------------------------------------------------------------------------------------------- sessions

    def hold(self, session: str, paths: Sequence[Path]) -> None:
        """From now on the session holds the first of these, as many as it may, and no others; the rest is removed."""
        with self._lock:
            self._add(session, paths)
            taken = set(dict.fromkeys(paths[:FILES]))
            self._drop(session, taken)
            self._remove(path for path in paths if path not in self._held)

    def add(self, session: str, paths: Sequence[Path]) -> None:
        """The session holds these, too, as many as it may."""
        with self._lock:
            self._add(session, paths)

    def forget(self, request: gr.Request) -> None:
        """The session is over: its page was closed or loaded anew."""
        with self._lock:
            self._drop(request.session_hash or "", set())

    def _add(self, session: str, paths: Sequence[Path]) -> None:
        for path in dict.fromkeys(paths[:FILES]):
            own = sum(session in sessions for sessions in self._held.values())
            if path in self._held or (own < FILES and len(self._held) < ALL_FILES and self._is_upload(path)):
                self._held.setdefault(path, set()).add(session)

    def _drop(self, session: str, but: set[Path]) -> None:
        for path in [path for path, sessions in self._held.items() if session in sessions and path not in but]:
            self._held[path].discard(session)
            if not self._held[path]:
                del self._held[path]
                self._remove([path])

    def _is_upload(self, path: Path) -> bool:
        return path.is_relative_to(self.folder) and path.is_file()

    def _remove(self, paths) -> None:
        for path in paths:
            if self._is_upload(path):
                path.unlink(missing_ok=True)

    # ----------------------------------------------------------------------------------------------------------- room

    def measure(self) -> int:
        """How many bytes may still come, after removing what nobody claimed."""
        with self._lock:
            self._sweep()
            used = sum(size for _, _, size in self._files())
            self._free = min(ROOM - used, shutil.disk_usage(self.folder).free - SPARE)
            return self._free

    def take(self, size: int) -> bool:
        """Whether there is room for this many bytes more, which are then counted."""
        self._free -= size
        return self._free >= 0

    def landed(self, paths: Sequence[Path]) -> None:
        """These came in one request: more than a session may hold are not kept."""
        with self._lock:
            self._remove(path for path in paths[FILES:] if path not in self._held)
            self._sweep()

    def _files(self) -> list[tuple[Path, float, int]]:
        """Path, time of the last change and size of each file."""
        found = []
        for path in self.folder.rglob("*"):
            try:
                status = path.stat()
            except FileNotFoundError:  # removed meanwhile
                continue
            if path.is_file():
                found.append((path, status.st_mtime, status.st_size))
        return found

    def _sweep(self) -> None:
        files = self._files()
        existing = {path for path, _, _ in files}
        self._held = {path: sessions for path, sessions in self._held.items() if path in existing}
        unclaimed = sorted((at, path) for path, at, _ in files if path not in self._held)
        late = len(unclaimed) - UNCLAIMED
        oldest = time.time() - UNCLAIMED_SECONDS
        for n, (at, path) in enumerate(unclaimed):
            if n < late or at < oldest:
                path.unlink(missing_ok=True)


def read(paths: Sequence[str] | None, known: dict[str, list[Document]]) -> tuple[dict[str, list[Document]], list[str]]:
    """The documents of some files by path, and what could not be read.

    Args:
        paths: Of the files; their names are shown, their folders are not.
        known: What an earlier call found: it is not read again.
    """
    paths = list(dict.fromkeys(paths or ()))
    problems = []
    if len(paths) > FILES:
        problems.append(f"Only {FILES} files are taken; {len(paths) - FILES} were left out.")
    found = {path: known[path] for path in paths[:FILES] if path in known}
    missing = [Path(path) for path in paths[:FILES] if path not in known]
    for path in [path for path in missing if path.suffix.lower() not in SUFFIXES]:
        problems.append(f"{path.name}: this kind of file is not read.")
        missing.remove(path)
    for path, parts in read_files(missing, ocr_installed(), LIMITS):
        if isinstance(parts, Unreadable):
            problems.append(f"{path.name}: {re.sub(r' [(]--[a-z_]+[)]', '', str(parts))}")
            continue
        room = DOCUMENTS - sum(len(documents) for documents in found.values())
        if len(parts) > room:
            problems.append(f"{path.name}: only {room} of its {len(parts)} parts fit; {DOCUMENTS} are the limit.")
        name = _unused(path.name, {documents[0].id.split("#")[0] for documents in found.values() if documents})
        if room > 0:
            found[str(path)] = [as_document(part, name, path.stem) for part in parts[:room]]
    return found, problems


def _unused(name: str, taken: set[str]) -> str:
    """The name, or with a number where another file has it: two folders may hold a `notes.txt` each."""
    return next(new for n in range(1, FILES + 2) if (new := name if n == 1 else f"{name} ({n})") not in taken)
