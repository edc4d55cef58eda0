"""A library brought up to date with a folder: what is read, what has only moved, what is removed."""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Protocol

from lite.library.ocr import ocr_installed
from lite.library.parts import DEFAULT_LIMITS, File, Limits, Part, Unreadable
from lite.library.readers import PICTURED, VERSION, as_document
from lite.library.walk import LeftOut, walk
from lite.library.workers import read_files
from lite.schema import LiteError

# Written at once, but never less than a file; the last bounds what a stop can lose, in seconds.
BATCH_ROWS, BATCH_BYTES, BATCH_SECONDS = 1000, 64 << 20, 10
MOVED_ROWS = 200  # rewritten at once, with their pictures
SAME_FOLDER = 0.5  # share of the files of a folder that no longer exists which must be in another: it was renamed
DIGEST = 64  # characters at the end of a state that tell the content


class Store(Protocol):
    """What `update` needs of a `lite.library.store.Library`, whose methods have the documentation."""

    address: str

    def upgrade(self) -> bool: ...
    def files(self) -> dict[str, File]: ...
    def rows(self, files: Iterable[str]) -> list[dict]: ...
    def write(self, rows: Sequence[dict], moved: Iterable[str] = ()) -> None: ...
    def remove(self, files: Iterable[str]) -> None: ...
    def set_root(self, old: Iterable[str], new: str) -> None: ...
    def is_stale(self) -> bool: ...
    def optimise(self) -> None: ...
    def __len__(self) -> int: ...


@dataclass
class IndexReport(LeftOut):
    """What a run of `Library.index` did, in files; `documents` is what the library holds now.

    Args:
        notes: Those of `problems` that are about files which were read: what in them was not, or was read another way.
        moved: Found under another name or in another folder, and not read again.
        upgraded: Whether the library was of an earlier version.
    """

    notes: list[str] = field(default_factory=list)
    added: int = 0
    changed: int = 0
    moved: int = 0
    removed: int = 0
    unchanged: int = 0
    documents: int = 0
    upgraded: bool = False


def update(
    library: Store,
    folder: str | Path,
    ocr: bool | None,
    limits: Limits | None,
    progress: Callable[[int, int, int], None],
    read: Callable[..., Iterator[tuple[Path, list[Part] | Unreadable]]] | None,
) -> IndexReport:
    """See `Library.index`, which holds the lock."""
    place = Path(folder).resolve()
    if not place.is_dir():
        raise LiteError(f"{folder} is not a folder.")
    ocr = ocr_installed() if ocr is None else ocr
    limits = limits or DEFAULT_LIMITS
    report = IndexReport(upgraded=library.upgrade())
    known = library.files()
    home = _home(place, known, library.address)
    files = {_key(home, path): path for path in walk(place, report, Path(library.address).resolve())}
    here = _Here(library, home, place, files, known, report, progress)
    here.look(ocr, limits)
    for path, parts in (read or read_files)(here.changed(ocr, limits), ocr, limits):
        here.add(path, parts)
    here.write()
    here.move()
    gone = here.gone | here.left_behind()
    report.removed = len(here.gone - here.moved.keys())
    library.remove(gone - files.keys())
    library.set_root({file.root for file in here.mine.values()} - {str(home)}, str(home))
    if gone or report.moved or library.is_stale():  # also where the last run was stopped before it came here
        library.optimise()
    report.documents = len(library)
    here.tell()
    return report


@dataclass
class _Here:
    """One run over one folder.

    Args:
        home: The indexed folder that paths are told from; `place`, what is looked at, is it or lies in it.
        files: What is there now, by key.
        known: What the library holds, by key.
        mine: What it holds of `place`.
        gone: Keys of what it holds and is to be removed.
        elsewhere: Keys of what it holds of folders that no longer exist, or that lie in this one.
        moved: New path by the key of what has moved.
        states: Of the files, as far as they were looked at.
    """

    library: Store
    home: Path
    place: Path
    files: dict[str, Path]
    known: dict[str, File]
    report: IndexReport
    progress: Callable[[int, int, int], None]
    mine: dict[str, File] = field(default_factory=dict)
    gone: set[str] = field(default_factory=set)
    elsewhere: set[str] = field(default_factory=set)
    moved: dict[str, Path] = field(default_factory=dict)
    states: dict[Path, str] = field(default_factory=dict)
    batch: list[dict] = field(default_factory=list)
    size: int = 0
    done: int = 0
    written: int = 0
    last: float = field(default_factory=time.monotonic)

    def look(self, ocr: bool, limits: Limits) -> None:
        """Compare what the library holds with what there is. Raises LiteError where nothing of it is there."""
        exists = {root: Path(root).is_dir() for root in {file.root for file in self.known.values()}}
        for key, file in self.known.items():
            root = Path(file.root)
            if root == self.home or (root.name == self.home.name and not exists[file.root]):
                path = self.home / file.path
                if path.is_relative_to(self.place):
                    self.mine[key] = file
                    if key not in self.files and self.report.places.isdisjoint([path, *path.parents]):
                        self.gone.add(key)
            elif self.home in root.parents:
                if _key(self.home, root / file.path) in self.files:
                    self.elsewhere.add(key)
            elif not exists[file.root]:
                self.elsewhere.add(key)
        if self.gone and self.gone == self.mine.keys():
            for path in list(self.files.values()):
                self._look_at(path, ocr, limits)
            if self._contents().isdisjoint(_content(self.known[key].state) for key in self.gone):
                raise LiteError(
                    f"{self.place} holds none of the {len(self.gone)} files that the library in "
                    f"{self.library.address} has of it. Is its disk not mounted, or is it another folder of that name? "
                    "Nothing was changed. Index it into another --library, or first remove those files from this one: "
                    f"lite index --forget {self.place}"
                )

    def changed(self, ocr: bool, limits: Limits) -> Iterator[Path]:
        """The files to read. Those whose content the library holds of a place where it no longer is are moved."""
        movable = defaultdict(list)
        for key in (self.gone | self.elsewhere) - self.files.keys():
            movable[self.known[key].state].append(key)
        for key, path in list(self.files.items()):
            state = self._look_at(path, ocr, limits)
            if state and key not in self.mine and movable.get(state):
                self.moved[movable[state].pop()] = path
            elif state and (key not in self.mine or self.mine[key].state != state):
                yield path
                continue
            else:
                self.report.unchanged += bool(state)
            self.done += 1
            self.tell()

    def add(self, path: Path, parts: list[Part] | Unreadable) -> None:
        """What came out of a file."""
        key = _key(self.home, path)
        self.done += 1
        if isinstance(parts, Unreadable):
            self.report.problems.append(f"{path}: {parts}")
            self.gone |= {key} & self.mine.keys()  # what it held before it was damaged
            self.files.pop(key, None)
        else:
            notes = [f"{path}: {part.note}" for part in parts if part.note]
            self.report.notes += notes
            self.report.problems += notes
            self.report.changed += key in self.mine
            self.report.added += key not in self.mine
            state = self.states[path]
            self.batch += [as_row(part, self.home, path, key, n, state) for n, part in enumerate(parts)]
            self.size += sum(len(part.text) + len(part.image) for part in parts)
        if len(self.batch) >= BATCH_ROWS or self.size >= BATCH_BYTES or time.monotonic() - self.last >= BATCH_SECONDS:
            self.write()
        self.tell()

    def write(self) -> None:
        self.library.write(self.batch)
        self.written += len(self.batch)
        self.size, self.last = 0, time.monotonic()
        self.batch = []

    def move(self) -> None:
        """Give what has moved its new place."""
        waiting: dict[str, Path] = {}
        for key, path in self.moved.items():
            waiting[key] = path
            if sum(self.known[key].documents for key in waiting) >= MOVED_ROWS:
                self._rewrite(waiting)
                waiting = {}
        if waiting:
            self._rewrite(waiting)
        self.report.moved = len(self.moved)

    def _rewrite(self, moved: dict[str, Path]) -> None:
        rows = self.library.rows(moved)
        for row in rows:
            old, path = self.known[row["file"]], moved[row["file"]]
            old_name, old_title = f"{Path(old.root).name}/{old.path}", _title(Path(old.path))
            key = _key(self.home, path)
            inside = _inside(self.home, path, key)
            row |= {
                "key": f"{key}-{row['key'].rpartition('-')[2]}", "file": key, "root": _text(self.home), "path": inside,
                "id": f"{self.home.name}/{inside}{row['id'].removeprefix(old_name)}", "state": self.states[path],
                "title": _title(path.relative_to(self.home)) + row["title"].removeprefix(old_title),
            }  # fmt: skip
        self.library.write(rows, moved)
        self.written += len(rows)
        self.tell()

    def left_behind(self) -> set[str]:
        """Of what is elsewhere: what is also here, and the rest of folders that were renamed to this one."""
        contents = self._contents()
        also_here = {key for key in self.elsewhere if _content(self.known[key].state) in contents}
        by_root = defaultdict(set)
        for key in self.elsewhere:
            by_root[self.known[key].root].add(key)
        for root, keys in by_root.items():
            if self.home in Path(root).parents:
                also_here |= keys  # read anew, as part of this folder
            elif len(keys & also_here) >= SAME_FOLDER * len(keys):
                self.gone |= keys - also_here
        return also_here

    def tell(self) -> None:
        self.progress(self.done, max(self.done, len(self.files)), self.written)

    def _look_at(self, path: Path, ocr: bool, limits: Limits) -> str:
        """The file's state; empty where it cannot be read: then what the library holds of it stays."""
        if path not in self.states:
            try:
                self.states[path] = _state(path, ocr, limits)
            except FileNotFoundError:  # deleted since the folder was listed
                self.states[path] = ""
                key = _key(self.home, path)
                self.files.pop(key, None)
                self.gone |= {key} & self.mine.keys()
            except OSError as error:
                self.states[path] = ""
                self.report.problems.append(f"{path}: it cannot be read ({error.strerror}).")
        return self.states[path]

    def _contents(self) -> set[str]:
        return {_content(state) for state in self.states.values() if state}


def _home(place: Path, known: dict[str, File], address: str) -> Path:
    """The indexed folder that a folder lies in, or the folder itself. Raises LiteError where names would clash."""
    roots = {Path(file.root) for file in known.values()}
    around = [root for root in roots if root in place.parents and not _hidden(place.relative_to(root))]
    home = max(around, key=lambda root: len(root.parts), default=place)
    twin = next((r for r in roots if r.name == home.name and r != home and home not in r.parents and r.is_dir()), None)
    if twin:
        raise LiteError(
            f"The library in {address} holds another folder of that name, {twin}. "
            "Rename one of them, or give another --library."
        )
    return home


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


# ----------------------------------------------------------------------------------------------------------------- rows


def as_row(part: Part, root: Path, path: Path, file: str, number: int, state: str) -> dict:
    """What the table holds of a part of a file, but for what it is searched by."""
    inside = _inside(root, path, file)
    document = as_document(part, f"{_text(root.name)}/{inside}", _title(path.relative_to(root)))
    return {
        "key": f"{file}-{number:06d}", "file": file, "root": _text(root), "path": inside, "state": state,
        "id": document.id, "kind": part.kind, "title": document.title, "text": part.text, "page": part.page,
        "boxes": part.boxes, "image": part.image or None, **({"vector": part.vector} if part.vector else {}),
    }  # fmt: skip


def _key(root: Path, path: Path) -> str:
    """What a file is called in the library, in hexadecimal: no name can break a filter."""
    return sha256(os.fsencode(Path(root.name) / path.relative_to(root))).hexdigest()[:32]


def _state(path: Path, ocr: bool, limits: Limits) -> str:
    """Changes with the content, and with what reads it. A file that is over the limit is not read for it."""
    info = path.stat()
    if info.st_size > limits.megabytes * 10**6:
        return f"{info.st_size} {info.st_mtime_ns}"
    ocr = ocr and path.suffix.lower() in PICTURED
    with path.open("rb") as file:
        return f"{VERSION}{ocr:d}{file_digest(file, 'sha256').hexdigest()}"


def _content(state: str) -> str:
    return state[-DIGEST:]


def _inside(root: Path, path: Path, file: str) -> str:
    """The path from its root, as text."""
    inside = _text(path.relative_to(root))
    return f"{inside}~{file[:8]}" if "\ufffd" in inside else inside  # not UTF-8: two of them may look alike


def _title(inside: Path) -> str:
    return " ".join(_text(inside.with_suffix("")).split())


def _text(path: Path | str) -> str:
    return os.fsencode(path).decode("utf-8", "replace")
