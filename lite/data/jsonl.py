"""A user's own labelled data: one JSON object per line, a document or a question.

    {"id": "manual-12", "kind": "text", "title": "Manual, page 12", "text": "Keep the pressure below 3 bar."}
    {"id": "gauge-2", "kind": "image", "title": "Gauge of pump 2", "image": "photos/gauge.jpg"}
    {"question": "Is pump 2 within its limits?", "relevant": ["manual-12", "gauge-2"], "answers": ["no"]}

A document has `id`, `kind` (text, table, image, page), `title`, and `text` (a table's is Markdown) or `image`, a path
from the file's folder and within it, or within one of LITE_IMAGE_FOLDERS (folders separated as in PATH). A question has
`question`, `relevant` (ids), and, if you like, `answers`, `documents` (the ids it is asked over; without them a pool of
30 is drawn from the file), `category`, `id`, `keywords` (what a right answer contains: the question is then scored by
WebQA's metric) and `split` (train, dev, test; where no question has one, see `divide`).

A Parquet file with these columns works as well: a row is a line, and a null a missing field.
"""

from __future__ import annotations

import math
import os
import zlib
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lite.data.images import Folder, LazyImage
from lite.data.lines import read_lines
from lite.data.pools import Corpus, hard_pool
from lite.data.problems import Problems
from lite.schema import Document, Example, LiteError

KINDS = ("text", "table", "image", "page")
SPLITS = ("train", "dev", "test")
DOCUMENT_FIELDS = {"id", "kind", "title", "text", "image"}
QUESTION_FIELDS = {"id", "question", "relevant", "answers", "documents", "category", "split", "keywords"}
IMAGE_FOLDERS = "LITE_IMAGE_FOLDERS"
CLIPPED = 300  # characters of a value in a message: it may have millions


class Malformed(Exception):
    """A line that is not what the format says; the message is for the user.

    Args:
        message: Names the value.
        kind: What the same mistake in other lines is counted as.
    """

    def __init__(self, message: str, kind: str = "malformed line"):
        super().__init__(message if len(message) <= 3 * CLIPPED else f"{message[: 3 * CLIPPED]}…")
        self.kind = kind


def load_examples(path: Path, split: str, limit: int | None, problems: Problems) -> list[Example]:
    """The questions of a split. Raises or counts, with the line number, whatever is wrong with the file."""
    documents, questions = _read(path, problems)
    divided = any("split" in question for _, question in questions.values())
    splits = {} if divided else divide({i: question["relevant"] for i, (_, question) in questions.items()})
    corpus = None
    examples = []
    for line, question in questions.values():
        if len(examples) == limit:
            break
        own = question.get("split", "train") if divided else splits[question["id"]]
        if own != split:
            continue
        missing = [i for i in [*question["relevant"], *question.get("documents", [])] if i not in documents]
        if missing:
            guess = _suggestion(missing[0], documents)
            message = f"there is no document with the id {missing[0][:CLIPPED]!r}{guess}"
            problems.add("unknown document", f"{path}, line {line}: {message}.")
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


def _read(path: Path, problems: Problems) -> tuple[dict[str, Document], dict[str, tuple[int, dict[str, Any]]]]:
    """The documents by id, and the questions with their line numbers."""
    documents: dict[str, Document] = {}
    questions: dict[str, tuple[int, dict[str, Any]]] = {}
    store = Folder(path.parent)
    for line, row in _read_parquet(path) if path.suffix == ".parquet" else read_lines(path, problems):
        try:
            if _is_question(row):
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
            problems.add(error.kind, f"{path}, line {line}: {error}.")
    if not questions:
        mistakes = "".join(f"\n  {line}" for line in problems.listed())
        raise LiteError(
            f'{path} holds no question{" that can be read" * bool(mistakes)}: a line such as {{"question": …, '
            f'"relevant": […]}}.{mistakes}'
        )
    return documents, questions


def divide(relevant: dict[str, list[str]]) -> dict[str, str]:
    """The split of each question where none names its own: a tenth each goes to dev and to test, at least one.

    Questions that rest on the same document stay together, so that nothing is tested on a document that was trained on.
    Where that leaves a split empty, as where all rest on one document, each question is drawn by itself. The draw is
    decided by the questions' ids and documents, not by their order.

    Args:
        relevant: The ids of each question's relevant documents, by its id.
    """
    first_of = connected(relevant.values())
    together = defaultdict(list)
    for question, ids in relevant.items():
        together[first_of(ids[0])].append(question)
    found = _drawn(list(together.values()))
    return found if len(set(found.values())) == len(SPLITS) else _drawn([[question] for question in relevant])


def connected(groups: Iterable[Sequence[str]]) -> Callable[[str], str]:
    """What gives one name to all that stand in one group, or in groups with a member in common."""
    root: dict[str, str] = {}

    def find(i: str) -> str:
        while root.setdefault(i, i) != i:
            root[i] = root[root[i]]
            i = root[i]
        return i

    for first, *others in groups:
        for other in others:
            root[find(other)] = find(first)
    return find


def _drawn(groups: list[list[str]]) -> dict[str, str]:
    count = sum(map(len, groups))
    wanted = math.ceil(count / 10)
    room = {"test": wanted, "dev": wanted}
    found = {}
    for group in sorted(groups, key=lambda group: (zlib.crc32(min(group).encode()), min(group))):
        # a little over a tenth, and up to a quarter where it is one group
        largest = {
            split: max(wanted, count // 4) if left == wanted else left + wanted // 2 for split, left in room.items()
        }
        split = next((split for split, left in room.items() if left > 0 and len(group) <= largest[split]), "train")
        found |= dict.fromkeys(group, split)
        if split in room:
            room[split] -= len(group)
    return found


def _read_parquet(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Number, from 1, and fields of each row."""
    number = 0
    try:
        for batch in pq.ParquetFile(path).iter_batches():
            for row in batch.to_pylist():
                number += 1
                yield number, {name: value for name, value in row.items() if value is not None}
    except (pa.ArrowException, OSError) as error:
        raise LiteError(f"{path} is no Parquet file, or a damaged one: {error}") from error


def _is_question(row: dict[str, Any]) -> bool:
    """Judged by all of its fields: the one that tells may be misspelt."""
    if "question" in row or "kind" in row:
        return "question" in row
    of_question = sum(bool(get_close_matches(name, QUESTION_FIELDS - DOCUMENT_FIELDS, 1)) for name in row)
    of_document = sum(bool(get_close_matches(name, DOCUMENT_FIELDS - QUESTION_FIELDS, 1)) for name in row)
    return of_question > of_document


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
        _check_image(store, image)
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
        guess = f': did you mean ["{ids}"]?' if isinstance(ids, str) else ""
        is_list = isinstance(ids, list) and all(isinstance(i, str) for i in ids)
        _require(is_list, f"{name!r} must be a list of ids{guess}", f"{name!r} that is no list of ids")
    _require(bool(question.get("relevant")), "'relevant' must name at least one document")
    _require(
        isinstance(answers, list) and all(isinstance(a, str | int | float) and str(a).strip() for a in answers),
        "'answers' must be a list of texts, none empty",
    )
    return question | {"answers": [str(answer) for answer in answers]}


def _check_image(store: Folder, image: str) -> None:
    """Whoever wrote the file may name any place of this machine; links are followed to where they lead."""
    where = store.where(image)[:CLIPPED]
    try:
        place = _resolved((store.path / image).parent) / Path(image).name
        place = place.resolve() if place.is_symlink() else place
        is_file = place.is_file()
    except (OSError, ValueError):  # a name of 10,000 letters, or with a zero byte
        is_file = False
    _require(is_file, f"the image {where} does not exist", "missing image")
    allowed = [store.path, *filter(None, os.environ.get(IMAGE_FOLDERS, "").split(os.pathsep))]
    _require(
        any(place.is_relative_to(_resolved(Path(folder))) for folder in allowed),
        f"the image {where} is outside the file's folder. If it is yours, name its folder: "
        f"export {IMAGE_FOLDERS}={place.parent}",
        "image outside the file's folder",
    )


@cache
def _resolved(folder: Path) -> Path:
    return folder.resolve()  # asked for every image


def _known(row: dict[str, Any], fields: set[str], what: str) -> None:
    for name in sorted(row.keys() - fields):
        guess = _suggestion(name, fields)
        raise Malformed(
            f"unknown field {name!r}{guess}; a {what} has {', '.join(sorted(fields))}", f"unknown field {name[:40]!r}"
        )
    texts = [part for value in row.values() for part in (value if isinstance(value, list) else [value])]
    try:
        "".join(text for text in texts if isinstance(text, str)).encode()
    except UnicodeEncodeError as error:
        raise Malformed(f"half a character (a lone surrogate, {error.object[error.start]!r})") from error


def _suggestion(name: str, known: Collection[str]) -> str:
    near = get_close_matches(name[:CLIPPED], known, 1) if len(known) <= 10_000 else []
    return f": did you mean {near[0]!r}?" if near else ""


def _require(condition: object, message: str, kind: str = "malformed line") -> None:
    if not condition:
        raise Malformed(message, kind)
