"""A user's own labelled data: one JSON object per line, a document or a question.

    {"id": "manual-12", "kind": "text", "title": "Manual, page 12", "text": "Keep the pressure below 3 bar."}
    {"id": "gauge-2", "kind": "image", "title": "Gauge of pump 2", "image": "photos/gauge.jpg"}
    {"question": "Is pump 2 within its limits?", "relevant": ["manual-12", "gauge-2"], "answers": ["no"]}

A document has `id`, `kind` (text, table, image, page), `title`, and `text` (a table's is Markdown) or `image`, a path
from the file's folder. A question has `question`, `relevant` (ids), and, if you like, `answers`, `documents` (the ids
it is asked over; without them a pool of 30 is drawn from the file), `category`, `id`, `keywords` (what a right
answer contains: the question is then scored by WebQA's metric) and `split` (train, dev, test; where no question has
one, a tenth each goes to dev and to test).

A Parquet file with these columns does as well: a row is a line, and a null a field that is not there.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lite.data.images import Folder, LazyImage
from lite.data.multimodalqa import read_lines
from lite.data.pools import Corpus, hard_pool
from lite.data.problems import Problems
from lite.schema import Document, Example, LiteError

KINDS = ("text", "table", "image", "page")
SPLITS = ("train", "dev", "test")
DOCUMENT_FIELDS = {"id", "kind", "title", "text", "image"}
QUESTION_FIELDS = {"id", "question", "relevant", "answers", "documents", "category", "split", "keywords"}


class Malformed(Exception):
    """A line that is not what the format says; the message is for the user."""


def load_examples(path: Path, split: str, limit: int | None, problems: Problems) -> list[Example]:
    """The questions of a split. Raises or counts, with the line number, whatever is wrong with the file."""
    documents: dict[str, Document] = {}
    questions: dict[str, tuple[int, dict[str, Any]]] = {}
    store = Folder(path.parent)
    for line, row in _read_parquet(path) if path.suffix == ".parquet" else read_lines(path, problems):
        try:
            if "question" in row:
                question = _checked_question(row, line)
                if question["id"] in questions:
                    raise Malformed(f"the question id {question['id']!r} comes twice")
                questions[question["id"]] = (line, question)
            else:
                document = _document(row, store)
                if document.id in documents:
                    raise Malformed(f"the document id {document.id!r} comes twice")
                documents[document.id] = document
        except Malformed as error:
            problems.add("malformed line", f"{path}, line {line}: {error}.")
    if not questions:
        raise LiteError(f'{path} holds no question: a line such as {{"question": …, "relevant": […]}}.')
    divided = any("split" in question for _, question in questions.values())
    corpus = None
    examples = []
    for line, question in questions.values():
        if len(examples) == limit:
            break
        own = question.get("split", "train") if divided else split_of(question["id"])
        if own != split:
            continue
        missing = [i for i in [*question["relevant"], *question.get("documents", [])] if i not in documents]
        if missing:
            problems.add("unknown document", f"{path}, line {line}: there is no document with the id {missing[0]!r}.")
            continue
        pool = dict.fromkeys([*question["relevant"], *question.get("documents", [])])
        example = Example(
            id=question["id"],
            question=question["question"].strip(),
            documents=tuple(documents[i] for i in pool),
            relevant=frozenset(question["relevant"]),
            answers=tuple(question["answers"]),
            category=question.get("category", ""),
            split=split,
            keywords=question.get("keywords", ""),
            metric="webqa" if question.get("keywords") else "",
        )
        if "documents" not in question:
            corpus = corpus or Corpus(list(documents.values()))
            example = hard_pool(example, corpus)
        examples.append(example)
    return examples


def _read_parquet(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Number, from 1, and fields of each row."""
    number = 0
    try:
        for batch in pq.ParquetFile(path).iter_batches():
            for row in batch.to_pylist():
                number += 1
                yield number, {name: value for name, value in row.items() if value is not None}
    except pa.ArrowInvalid as error:
        raise LiteError(f"{path} is no Parquet file, or a damaged one: {error}") from error


def split_of(question_id: str) -> str:
    """Where no question names its split: four fifths train, a tenth each dev and test, decided by the id alone."""
    return (*["train"] * 8, "dev", "test")[zlib.crc32(question_id.encode()) % 10]


def _document(row: dict[str, Any], store: Folder) -> Document:
    _known(row, DOCUMENT_FIELDS, "document")
    for name in ("id", "kind"):
        _require(isinstance(row.get(name), str) and row[name], f"a document needs {name!r}, a text")
    _require(row["kind"] in KINDS, f"unknown kind {row['kind']!r}; there are {', '.join(KINDS)}")
    for name in ("title", "text"):
        _require(isinstance(row.get(name, ""), str), f"{name!r} must be a text")
    text, image = row.get("text", ""), row.get("image")
    if row["kind"] in ("image", "page"):
        _require(isinstance(image, str) and image, f"the {row['kind']} {row['id']!r} needs 'image', a path")
        _require((store.path / image).is_file(), f"the image {store.where(image)} does not exist")
    else:
        _require(image is None, f"the {row['kind']} {row['id']!r} cannot have an image; its kind would be 'image'")
        _require(bool(text.strip()), f"the {row['kind']} {row['id']!r} needs 'text'")
    return Document(row["id"], row["kind"], row.get("title", ""), text, LazyImage(store, image) if image else None)


def _checked_question(row: dict[str, Any], line: int) -> dict[str, Any]:
    _known(row, QUESTION_FIELDS, "question")
    answers = row.get("answers", [])
    answers = [answers] if isinstance(answers, str | int | float) else answers
    question = {**row, "id": row.get("id", f"line-{line}"), "answers": answers}
    for name in ("id", "question"):
        _require(isinstance(question[name], str) and question[name].strip(), f"{name!r} must be a text, not empty")
    for name in ("category", "keywords"):
        _require(isinstance(question.get(name, ""), str), f"{name!r} must be a text")
    _require(question.get("split", "train") in SPLITS, f"unknown split {row.get('split')!r}: {', '.join(SPLITS)}")
    for name in ("relevant", "documents"):
        ids = question.get(name, [])
        _require(isinstance(ids, list) and all(isinstance(i, str) for i in ids), f"{name!r} must be a list of ids")
    _require(bool(question.get("relevant")), "'relevant' must name at least one document")
    _require(
        isinstance(answers, list) and all(isinstance(a, str | int | float) and str(a).strip() for a in answers),
        "'answers' must be a list of texts, none empty",
    )
    return question | {"answers": [str(answer) for answer in answers]}


def _known(row: dict[str, Any], fields: set[str], what: str) -> None:
    unknown = sorted(row.keys() - fields)
    _require(not unknown, f"unknown field {unknown[0] if unknown else ''!r}; a {what} has {', '.join(sorted(fields))}")


def _require(condition: object, message: str) -> None:
    if not condition:
        raise Malformed(message)
