"""A folder of your own files as a library: indexed once, kept up to date, searched by words and, if wanted, meaning.

One LanceDB table holds everything, pictures too, so a library can be copied, or kept in an object store. The documents
of a file are written in one transaction: whenever the program is stopped, a file is in the library as a whole or not at
all, and the next run goes on from there. `lite.library.update` brings a library up to date with a folder.
"""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
from filelock import FileLock, Timeout

from lite.library import words
from lite.library.embedding import embed_query, embed_rows, embedding_size
from lite.library.images import open_image
from lite.library.parts import File
from lite.schema import Document, LiteError, first_line
from lite.startup import import_late

import_late("lance_namespace_urllib3_client")

import lancedb  # noqa: E402
from lancedb.index import FTS, IvfFlat  # noqa: E402
from lancedb.query import MatchQuery  # noqa: E402

if TYPE_CHECKING:
    from lite.library.parts import Limits
    from lite.library.update import IndexReport

TABLE = "documents"
COLUMNS = ["id", "kind", "title", "text", "page", "boxes", "image"]
LOCK = ".lock"
WORDS = f"words_{words.VERSION}"  # the column with the terms of title and text; another version has another column
FULL_TEXT, VECTORS = f"{WORDS}_idx", "vector_idx"
VECTOR_INDEX_ROWS = 50_000  # below, the question is compared with every vector, which misses nothing
FIRST_FORMAT = "searchable"  # the column in place of `WORDS` that libraries of lite 0.1.0 have
UPGRADE_ROWS = 1000


@dataclass(frozen=True)
class Hit:
    """A document that a search found.

    Args:
        document: Its image, if any, is decoded when it is asked for.
        score: BM25, or the fused score of a hybrid search; comparable within one search only.
    """

    document: Document
    score: float


@dataclass(frozen=True)
class Folder:
    """What a library holds of one folder.

    Args:
        path: Where the folder was when it was indexed.
        files, documents: How many.
    """

    path: str
    files: int
    documents: int


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
                f"Cannot open the library in {address}: {first_line(error)[:300]} Check the address and, "
                "for an object store, the keys in the environment."
            ) from error
        if embedding is not None and embedding != library.embedding:
            another = f"{address.rstrip('/')}-{re.sub(r'[^a-z0-9]+', '-', Path(embedding).name.lower())}"
            raise LiteError(
                f"The library in {address} was made with the embedding {library.embedding}, not {embedding}, and it "
                "has only one. This makes another library: "
                f"lite index FOLDER --library {shlex.quote(another)} --embedding {shlex.quote(embedding)}"
            )
        return library

    def __len__(self) -> int:
        return self._table.count_rows()

    # ------------------------------------------------------------------------------------------------------- search

    def search(self, query: str, limit: int = 20) -> list[Hit]:
        """The documents that fit best, best first: by BM25, with an embedding fused with its order (RRF).

        Args:
            query: Words or a question, in any language; see `lite.library.words`.
            limit: How many, at most.
        """
        column = next(iter(self._stale()), WORDS)  # where the library is not brought up to date yet
        wanted = [] if column == FIRST_FORMAT else words.query_terms(query)
        match = MatchQuery(" ".join(wanted) or query, column)
        columns = [name for name in COLUMNS if name in self._table.schema.names]
        if self.embedding == "none":
            found = self._table.search(match, query_type="fts").select([*columns, "_score"]).limit(limit).to_list()
            return [Hit(_document(row), row["_score"]) for row in found]
        from lancedb.rerankers import RRFReranker

        vector = embed_query(self.embedding, query)
        hybrid = self._table.search(query_type="hybrid", vector_column_name="vector", fts_columns=column)
        found = hybrid.vector(vector).text(match).rerank(RRFReranker()).limit(limit).to_list()
        return [Hit(_document(row), row["_relevance_score"]) for row in found]

    def documents(self) -> Iterator[Document]:
        """All documents, without their images, in no particular order."""
        columns = [name for name in COLUMNS[:-1] if name in self._table.schema.names]
        for batch in self._table.search().select(columns).limit(None).to_batches():
            for row in batch.to_pylist():
                yield _document(row)

    def folders(self) -> list[Folder]:
        """What the library holds, by folder."""
        documents, files = Counter(), Counter()
        for file in self.files().values():
            documents[file.root] += file.documents
            files[file.root] += 1
        return [Folder(root, files[root], documents[root]) for root in sorted(files)]

    # -------------------------------------------------------------------------------------------------------- index

    def index(
        self,
        folder: str | Path,
        ocr: bool | None = None,
        limits: Limits | None = None,
        progress: Callable[[int, int, int], None] = lambda done, total, documents: None,
        read: Callable | None = None,
    ) -> IndexReport:
        """Bring the library up to date with a folder: read what is new or changed, remove what no longer exists.

        Files are told apart by their content, so what was moved or renamed is not read again, and a folder that was
        renamed is not held twice. A folder inside an indexed one is brought up to date as part of it. Hidden files,
        links and kinds that are not read are left out; a file that cannot be read is reported and left out, too.

        Args:
            folder: Everything in it and below.
            ocr: Whether to read the text in images and scans; None: where the extra `ocr` is installed.
            limits: What a file may cost.
            progress: Called with files done, files in all and documents written.
            read: What reads files, as `lite.library.workers.read_files` (default) or, on the workers of a cluster,
                `lite.library.on_ray.read_on_ray`.

        Raises:
            LiteError: There is no such folder, another run is writing, the library holds another folder of its name, or
                all that it knows of this one would be removed, as where a disk is not mounted.
        """
        from lite.library.update import update  # with the readers of all kinds of files

        with self._locked():
            return update(self, folder, ocr, limits, progress, read)

    def forget(self, folder: str | Path) -> int:
        """Remove all that the library holds of a folder, and of those below it; its files stay as they are.

        Args:
            folder: One that was indexed or one inside it, which need not exist any more, or its name.

        Returns:
            How many files were removed.

        Raises:
            LiteError: The library holds nothing of it, or another run is writing.
        """
        place = Path(folder).resolve()
        with self._locked():
            self.upgrade()
            known = self.files()
            chosen = [key for key, file in known.items() if (Path(file.root) / file.path).is_relative_to(place)]
            chosen = chosen or [key for key, file in known.items() if Path(file.root).name == str(folder)]
            if not chosen:
                held = ", ".join(sorted({file.root for file in known.values()})) or "nothing"
                raise LiteError(f"The library in {self.address} holds nothing of {folder}. It holds: {held}.")
            self.remove(chosen)
            self.optimise()
        return len(chosen)

    def upgrade(self) -> bool:
        """Give a library of an earlier version the columns of this one. Returns whether there was anything to do.

        It can be stopped at any moment; the next call goes on. No file is read for it.
        """
        names, stale = self._table.schema.names, self._stale()
        new = {WORDS: "string", "path": "string", "page": "int", "boxes": "binary"}
        missing = {name: f"cast(NULL as {kind})" for name, kind in new.items() if name not in names}
        if not (stale or missing):
            return False
        if missing:
            self._table.add_columns(missing)
        chosen = ["key", "root", "id", "title", "text"]
        while rows := self._table.search().where(f"{WORDS} IS NULL").select(chosen).limit(UPGRADE_ROWS).to_list():
            filled = [
                {"key": row["key"], WORDS: _searchable(row), "path": _path_in(row["id"], row["root"])} for row in rows
            ]
            self._table.merge_insert("key").when_matched_update_all().execute(pa.Table.from_pylist(filled))
        if stale:
            self._table.drop_columns(stale)
        self.optimise()
        return True

    def _stale(self) -> list[str]:
        """Columns by which an earlier version searched."""
        names = self._table.schema.names
        return [name for name in names if name == FIRST_FORMAT or (name.startswith("words_") and name != WORDS)]

    def files(self) -> dict[str, File]:
        """What the library knows, by `file`."""
        names = ["file", "root", "path", "state"]
        table = self._table.search().select(names).limit(None).to_arrow().group_by(names).aggregate([([], "count_all")])
        rows = zip(*(table[name].to_pylist() for name in (*names, "count_all")), strict=True)
        return {file: File(*rest) for file, *rest in rows}

    def rows(self, files: Iterable[str]) -> list[dict]:
        """All that the table holds of files."""
        return self._table.search().where(f"file IN ({_quoted(sorted(files))})").limit(None).to_list()

    def write(self, rows: Sequence[dict], moved: Iterable[str] = ()) -> None:
        """Replace all that the library holds of these rows' files, and of the moved ones, in one transaction."""
        if not rows:
            return
        rows = [row | {WORDS: _searchable(row)} for row in rows]
        bare = [row for row in rows if "vector" not in row] if self.embedding != "none" else []
        for row, vector in zip(bare, embed_rows(self.embedding, bare) if bare else [], strict=True):
            row["vector"] = vector
        merge = self._table.merge_insert("key").when_matched_update_all().when_not_matched_insert_all()
        files = _quoted(sorted({row["file"] for row in rows} | {*moved}))
        merge.when_not_matched_by_source_delete(f"file IN ({files})").execute(
            pa.Table.from_pylist(list(rows), schema=self._table.schema)
        )

    def remove(self, files: Iterable[str]) -> None:
        """Remove all that the library holds of files."""
        names = sorted(files)
        for start in range(0, len(names), 1000):
            self._table.delete(f"file IN ({_quoted(names[start : start + 1000])})")

    def set_root(self, old: Iterable[str], new: str) -> None:
        """Say where folders are that were moved as a whole."""
        for root in old:
            self._table.update(where=f"root = {_literal(root)}", values={"root": new})

    def _indices(self) -> dict[str, tuple[str, FTS | IvfFlat]]:
        """Column and kind, by name, of the indices that a library of this size has."""
        as_it_is = {"lower_case": False, "stem": False, "remove_stop_words": False, "ascii_folding": False}
        found = {FULL_TEXT: (WORDS, FTS(base_tokenizer="whitespace", max_token_length=None, **as_it_is))}
        if self.embedding != "none" and self._table.count_rows() >= VECTOR_INDEX_ROWS:
            found[VECTORS] = ("vector", IvfFlat())
        return found

    def is_stale(self) -> bool:
        """Whether an index is missing or does not hold all documents, and searches go slowly through the rest."""
        found = [self._table.index_stats(name) for name in self._indices()]
        return any(stats is None or stats.num_unindexed_rows > 0 for stats in found)

    def optimise(self) -> None:
        for name, (column, kind) in self._indices().items():
            if self._table.index_stats(name) is None:
                self._table.create_index(column, config=kind, name=name)
        self._table.optimize()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One writer at a time."""
        lock = FileLock(Path(self.address) / LOCK) if "://" not in self.address else None
        try:
            if lock:
                lock.acquire(timeout=0)
            yield
        except (Timeout, RuntimeError) as error:
            if isinstance(error, RuntimeError) and "concurrent transaction" not in str(error):
                raise
            raise LiteError(  # an object store has no locks; LanceDB's transactions keep the table whole
                f"Another run is writing to the library in {self.address}. Wait for it, then run this again."
            ) from error
        finally:
            if lock:
                lock.release()


def _document(row: dict) -> Document:
    image = partial(open_image, row["image"]) if row.get("image") else None
    where = {"page": row.get("page") or 0, "boxes": row.get("boxes") or b""}
    return Document(row["id"], row["kind"], row["title"], row["text"], image, **where)


def _searchable(row: dict) -> str:
    return " ".join(words.terms(f"{row['title']}\n{row['text']}"))


def _path_in(document_id: str, root: str) -> str:
    """The file's path from its root, of rows that do not have it: ids read `ROOT'S NAME/PATH#PLACE`."""
    name = re.sub(r"#(?:page|part|sheet|table)=.*$", "", document_id, flags=re.DOTALL)
    return name.removeprefix(f"{Path(root).name}/")


def _schema(embedding: str) -> pa.Schema:
    texts = ("key", "file", "root", "path", "state", "id", "kind", "title", "text", WORDS)
    fields = [pa.field(name, pa.string()) for name in texts]
    fields += [pa.field("page", pa.int32()), pa.field("boxes", pa.binary()), pa.field("image", pa.large_binary())]
    if embedding != "none":
        size = embedding_size(embedding)
        fields.append(pa.field("vector", pa.list_(pa.float32(), size)))
    return pa.schema(fields, metadata={"embedding": embedding})


def _names(database: lancedb.DBConnection) -> list[str]:
    return database.list_tables().tables


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(map(_literal, names))


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
