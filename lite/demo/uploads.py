"""Files that visitors of the demo upload: read within limits, known to their session only, and removed with it."""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from pathlib import Path

import gradio as gr

from lite.library.images import ocr_installed
from lite.library.readers import SUFFIXES, Limits, Unreadable, as_document
from lite.library.workers import read_files
from lite.schema import Document

FILES = 20  # per session
DOCUMENTS = 300  # per session, for they are kept in memory; a page of a PDF is one
LIMITS = Limits(megabytes=50, megapixels=50, pages=300, seconds=60, gigabytes=4)


class Uploads:
    """Which sessions hold which uploaded files. Gradio keeps one copy of files with the same content and name, whoever
    uploads them: a file is removed with the last session that holds it."""

    def __init__(self) -> None:
        self._held: dict[Path, set[str]] = {}
        self._lock = threading.Lock()

    def hold(self, session: str, paths: Sequence[Path]) -> None:
        """From now on the session holds these and no others."""
        with self._lock:
            for path in paths:
                self._held.setdefault(path, set()).add(session)
            self._drop(session, set(paths))

    def forget(self, request: gr.Request) -> None:
        """The session is over: its page was closed or loaded anew."""
        with self._lock:
            self._drop(request.session_hash or "", set())

    def _drop(self, session: str, but: set[Path]) -> None:
        for path in [path for path, sessions in self._held.items() if session in sessions and path not in but]:
            self._held[path].discard(session)
            if not self._held[path]:
                del self._held[path]
                path.unlink(missing_ok=True)


def read(paths: Sequence[str] | None, known: dict[str, list[Document]]) -> tuple[dict[str, list[Document]], list[str]]:
    """The documents of some files by path, and what could not be read.

    Args:
        paths: Of the files; their names are shown, their folders are not.
        known: What an earlier call found: it is not read again.
    """
    found = {path: known[path] for path in paths or () if path in known}
    problems = []
    missing = [Path(path) for path in dict.fromkeys(paths or ()) if path not in known]
    if len(found) + len(missing) > FILES:
        problems.append(f"Only {FILES} files are taken; {len(found) + len(missing) - FILES} were left out.")
        missing = missing[: max(0, FILES - len(found))]
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
