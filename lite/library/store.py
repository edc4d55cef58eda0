"""A folder of your own files as a library: indexed once, kept up to date, searched by words and, if wanted, meaning.

One LanceDB table holds everything, pictures too, so a library can be copied, or kept in an object store. The documents
of a file are written in one transaction: whenever the program is stopped, a file is in the library as a whole or not at
all, and the next run goes on from there.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import lancedb
import pyarrow as pa
from filelock import FileLock, Timeout
from lancedb.index import FTS, IvfFlat
from lancedb.query import MatchQuery
from lancedb.rerankers import RRFReranker

from lite.library.embedding import embed_query, embed_rows, embedding_size
from lite.library.images import ocr_installed, open_image
from lite.library.readers import (
    DEFAULT_LIMITS,
    HEIC,
    IMAGES,
    VERSION,
    Limits,
    Part,
    Unreadable,
    as_document,
)
from lite.library.walk import LeftOut, walk
from lite.library.workers import read_files
from lite.schema import Document, LiteError

TABLE = "documents"
# Written at once, but never less than a file; the last bounds what a stop can lose, in seconds.
BATCH_ROWS, BATCH_BYTES, BATCH_SECONDS = 1000, 64 << 20, 10
COLUMNS = ["id", "kind", "title", "text", "image"]
LOCK = ".lock"
FULL_TEXT, VECTORS = "searchable_idx", "vector_idx"
VECTOR_INDEX_ROWS = 50_000  # below, the question is compared with every vector, which misses nothing


@dataclass(frozen=True)
class Hit:
    """A document that a search found.

    Args:
        document: Its image, if any, is decoded when it is asked for.
        score: BM25, or the fused score of a hybrid search; comparable within one search only.
    """

    document: Document
    score: float


@dataclass
class IndexReport(LeftOut):
    """What a run of `Library.index` did, in files; `documents` is what the library holds now."""

    added: int = 0
    changed: int = 0
    removed: int = 0
    unchanged: int = 0
    documents: int = 0


class Library:
    """An indexed folder, or several. `Library.open` is the way to one."""

    def __init__(self, address: str, table: lancedb.table.Table):
        self.address = address
        self._table = table
        metadata = table.schema.metadata or {}
        self.embedding: str = metadata.get(b"embedding", b"").decode() or "none"

    @classmethod
    def open(cls, address: str | Path, create: bool = False, embedding: str | None = None) -> Library:
        """Open a library.

        Args:
            address: A local folder, or an object store's address (`s3://bucket/library`), which LanceDB opens alike.
            create: Make an empty one where there is none.
            embedding: A sentence-transformers model, by hub id or folder, for text or for text and images; None or
                `none`: words only. It is settled when the library is made.

        Raises:
            LiteError: There is no library there, the store does not answer, or it was made with another embedding.
        """
        address = str(address)
        try:
            database = lancedb.connect(address) if create or "://" in address or Path(address).is_dir() else None
            found = database is not None and TABLE in _names(database)
            if database is None or not (found or create):
                raise LiteError(f"There is no library in {address}. Make one: lite index FOLDER --library {address}")
            if not found:
                database.create_table(TABLE, schema=_schema(embedding or "none"), exist_ok=True)
            library = cls(address, database.open_table(TABLE))
        except (OSError, RuntimeError, ValueError) as error:  # what LanceDB raises depends on the store
            raise LiteError(
                f"Cannot open the library in {address}: {str(error).splitlines()[0][:300]} Check the address and, "
                "for an object store, the keys in the environment."
            ) from error
        if embedding is not None and embedding != library.embedding:
            raise LiteError(
                f"The library in {address} was made with the embedding {library.embedding}, not {embedding}. "
                "Give another --library, or delete it and index anew."
            )
        return library

    def __len__(self) -> int:
        return self._table.count_rows()

    # ------------------------------------------------------------------------------------------------------- search

    def search(self, query: str, limit: int = 20) -> list[Hit]:
        """The documents that fit best, best first: by BM25, with an embedding fused with its order (RRF).

        Args:
            query: Words or a question; punctuation means nothing.
            limit: How many, at most.
        """
        words = MatchQuery(query, "searchable")
        if self.embedding == "none":
            found = self._table.search(words, query_type="fts").select([*COLUMNS, "_score"]).limit(limit).to_list()
            return [Hit(_document(row), row["_score"]) for row in found]
        vector = embed_query(self.embedding, query)
        hybrid = self._table.search(query_type="hybrid", vector_column_name="vector", fts_columns="searchable")
        found = hybrid.vector(vector).text(words).rerank(RRFReranker()).limit(limit).to_list()
        return [Hit(_document(row), row["_relevance_score"]) for row in found]

    def documents(self) -> Iterator[Document]:
        """All documents, without their images, in no particular order."""
        for batch in self._table.search().select(COLUMNS[:-1]).limit(None).to_batches():
            for row in batch.to_pylist():
                yield _document(row | {"image": None})

    # -------------------------------------------------------------------------------------------------------- index

    def index(
        self,
        folder: str | Path,
        ocr: bool | None = None,
        limits: Limits = DEFAULT_LIMITS,
        progress: Callable[[int, int, int], None] = lambda done, total, documents: None,
        read: Callable[[Iterable[Path], bool, Limits], Iterator[tuple[Path, list[Part] | Unreadable]]] = read_files,
        forget: bool = False,
    ) -> IndexReport:
        """Bring the library up to date with a folder: read what is new or changed, forget what is gone.

        Files are told apart by their content. Hidden files, links and kinds that are not read are left out; a file that
        cannot be read is reported and left out, too.

        Args:
            folder: Everything in it and below.
            ocr: Whether to read the text in images and scans; None: where the extra `ocr` is installed.
            limits: What a file may cost.
            progress: Called with files done, files in all and documents written.
            read: What reads files: this machine, or the workers of `lite.library.on_ray.read_on_ray`.
            forget: Also where all files that the library knows of this folder are gone.

        Raises:
            LiteError: There is no such folder, another run is writing, the library holds another folder of its name, or
                all that it knows of this one would be forgotten, as where a disk is not mounted.
        """
        root = Path(folder).resolve()
        if not root.is_dir():
            raise LiteError(f"{folder} is not a folder.")
        with self._locked():
            try:
                return self._index(root, ocr_installed() if ocr is None else ocr, limits, progress, read, forget)
            except RuntimeError as error:
                if "concurrent transaction" not in str(error):
                    raise
                raise LiteError(self._busy()) from error  # an object store has no locks

    def _index(
        self,
        root: Path,
        ocr: bool,
        limits: Limits,
        progress: Callable[[int, int, int], None],
        read: Callable,
        forget: bool,
    ) -> IndexReport:
        report = IndexReport()
        known = self._known(root)
        files = list(walk(root, report, Path(self.address).resolve()))
        gone = known.keys() - {_key(root, path) for path in files}
        if known and gone == known.keys() and not forget:
            raise LiteError(
                f"{root} holds none of the {len(gone)} files that the library in {self.address} has of a folder "
                f"{root.name!r}. Is its disk not mounted, or is it another folder? Nothing was changed. Index it into "
                "another --library, or with --forget, which forgets those files."
            )
        done = written = 0
        states: dict[Path, str] = {}

        def changed() -> Iterator[Path]:
            nonlocal done
            for path in files:
                try:
                    states[path] = _state(path, ocr, limits)
                except OSError as error:
                    report.problems.append(f"{path}: it cannot be read ({error.strerror}).")
                    states[path] = ""  # nor is it known to be gone: what the library has of it stays
                if states[path] and known.get(_key(root, path)) != states[path]:
                    yield path
                else:
                    report.unchanged += bool(states[path])
                    done += 1
                    progress(done, len(files), written)

        batch: list[dict] = []
        size = 0
        last = time.monotonic()

        def write() -> None:
            nonlocal size, written, last
            self._write(batch)
            written += len(batch)
            size, last = 0, time.monotonic()
            batch.clear()

        for path, parts in read(changed(), ocr, limits):
            key = _key(root, path)
            done += 1
            if isinstance(parts, Unreadable):
                report.problems.append(f"{path}: {parts}")
                gone.update({key} & known.keys())  # what it held before it was damaged
            else:
                report.problems += [f"{path}: {part.note}" for part in parts if part.note]
                report.changed += key in known
                report.added += key not in known
                batch += [as_row(part, root, path, key, n, states[path]) for n, part in enumerate(parts)]
                size += sum(len(part.text) + len(part.image) for part in parts)
            if len(batch) >= BATCH_ROWS or size >= BATCH_BYTES or time.monotonic() - last >= BATCH_SECONDS:
                write()
            progress(done, len(files), written)
        write()
        for start in range(0, len(gone), 1000):
            self._table.delete(f"file IN ({_quoted(sorted(gone)[start : start + 1000])})")
        report.removed = len(gone)
        if report.removed or self._is_stale():  # also where the last run was stopped before it came here
            self._optimise()
        report.documents = len(self)
        progress(done, len(files), written)
        return report

    def _write(self, rows: Sequence[dict]) -> None:
        """Replace all that the library holds of these rows' files by them, in one transaction."""
        if not rows:
            return
        if self.embedding != "none" and "vector" not in rows[0]:
            rows = [row | {"vector": v} for row, v in zip(rows, embed_rows(self.embedding, rows), strict=True)]
        merge = self._table.merge_insert("key").when_matched_update_all().when_not_matched_insert_all()
        files = _quoted(sorted({row["file"] for row in rows}))
        merge.when_not_matched_by_source_delete(f"file IN ({files})").execute(
            pa.Table.from_pylist(list(rows), schema=self._table.schema)
        )

    def _indices(self) -> dict[str, tuple[str, FTS | IvfFlat]]:
        """Column and kind, by name, of the indices that a library of this size has."""
        found = {FULL_TEXT: ("searchable", FTS())}
        if self.embedding != "none" and self._table.count_rows() >= VECTOR_INDEX_ROWS:
            found[VECTORS] = ("vector", IvfFlat())
        return found

    def _is_stale(self) -> bool:
        """Whether an index is missing or does not hold all documents, and searches go slowly through the rest."""
        found = [self._table.index_stats(name) for name in self._indices()]
        return any(stats is None or stats.num_unindexed_rows > 0 for stats in found)

    def _optimise(self) -> None:
        for name, (column, kind) in self._indices().items():
            if self._table.index_stats(name) is None:
                self._table.create_index(column, config=kind, name=name)
        self._table.optimize()

    def _known(self, root: Path) -> dict[str, str]:
        """State by file of what the library holds of `root`."""
        table = self._table.search().select(["file", "state", "root"]).limit(None).to_arrow()
        rows = list(zip(*(table[name].to_pylist() for name in ("file", "state", "root")), strict=True))
        twin = next((r for _, _, r in rows if Path(r).name == root.name and r != str(root) and Path(r).is_dir()), None)
        if twin:
            raise LiteError(
                f"The library in {self.address} holds another folder of that name, {twin}. "
                "Rename one of them, or give another --library."
            )
        return {file: state for file, state, r in rows if Path(r).name == root.name}

    def _locked(self):
        if "://" in self.address:
            return nullcontext()  # no locks there; LanceDB's transactions keep the table whole
        lock = FileLock(Path(self.address) / LOCK)
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            raise LiteError(self._busy()) from error
        return lock

    def _busy(self) -> str:
        return f"Another run is writing to the library in {self.address}. Wait for it, then run this again."


# ---------------------------------------------------------------------------------------------------------------- files


def _key(root: Path, path: Path) -> str:
    """What a file is called in the library, in hexadecimal: no name can break a filter."""
    return hashlib.sha256(os.fsencode(Path(root.name) / path.relative_to(root))).hexdigest()[:32]


def _state(path: Path, ocr: bool, limits: Limits) -> str:
    """Changes with the content, and with what reads it. A file that is over the limit is not read for it."""
    info = path.stat()
    if info.st_size > limits.megabytes * 10**6:
        return f"{info.st_size} {info.st_mtime_ns}"
    ocr = ocr and path.suffix.lower() in (".pdf", *IMAGES, *HEIC)
    with path.open("rb") as file:
        return f"{VERSION}{ocr:d}{hashlib.file_digest(file, 'sha256').hexdigest()}"


def as_row(part: Part, root: Path, path: Path, file: str, number: int, state: str) -> dict:
    """What the table holds of a part of a file."""
    inside = path.relative_to(root)
    name, title = (
        os.fsencode(p).decode("utf-8", "replace") for p in (Path(root.name) / inside, inside.with_suffix(""))
    )
    if "\ufffd" in name:  # a name that is not UTF-8: two of them may look alike
        name = f"{name}~{file[:8]}"
    document = as_document(part, name, title)
    return {
        "key": f"{file}-{number:06d}", "file": file, "root": str(root), "state": state, "id": document.id,
        "kind": part.kind, "title": document.title, "text": part.text, "image": part.image or None,
        "searchable": f"{document.title}\n{part.text}", **({"vector": part.vector} if part.vector else {}),
    }  # fmt: skip


def _document(row: dict) -> Document:
    image = partial(open_image, row["image"]) if row["image"] else None
    return Document(row["id"], row["kind"], row["title"], row["text"], image)


# -------------------------------------------------------------------------------------------------------------- storage


def _schema(embedding: str) -> pa.Schema:
    texts = ("key", "file", "root", "state", "id", "kind", "title", "text", "searchable")
    fields = [pa.field(name, pa.string()) for name in texts] + [pa.field("image", pa.large_binary())]
    if embedding != "none":
        size = embedding_size(embedding)
        fields.append(pa.field("vector", pa.list_(pa.float32(), size)))
    return pa.schema(fields, metadata={"embedding": embedding})


def _names(database: lancedb.DBConnection) -> list[str]:
    return database.list_tables().tables


def _quoted(names: Sequence[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)
