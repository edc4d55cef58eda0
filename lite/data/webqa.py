"""WebQA (Chang et al., CVPR 2022) as it is distributed: questions over images with captions and over text snippets.

A folder holds `WebQA_train_val.json` (a dict by Guid), `WebQA_test.json` (without labels), and the images:
`imgs.tsv` (51 GB of `id <tab> base64` lines) and `imgs.lineidx` (the byte offset of each of its lines).
"""

from __future__ import annotations

import base64
import binascii
import functools
import json
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lite.data.images import LazyImage
from lite.data.problems import Problems
from lite.schema import Document, Example, LiteError

FILES = {"train": "WebQA_train_val.json", "dev": "WebQA_train_val.json", "test": "WebQA_test.json"}
OFFICIAL_SPLITS = {"train": "train", "dev": "val", "test": "test"}
LINES = 10_000_000  # image i is on line i % LINES of imgs.tsv
READ_AT_ONCE = 1 << 18  # bytes; an average line of imgs.tsv has 130 kB
JSON_CHUNK = 1 << 22  # characters
LARGEST_RECORD = 1 << 24  # characters; ordinary ones have about 14,000
HIDDEN_KEYWORDS = ("", "TBD")


class Archive:
    """`imgs.tsv`, read by offset. `pread` shares no file position, so forked workers may use one archive; a pickled
    one is opened anew, once per process."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.path, index = folder / "imgs.tsv", folder / "imgs.lineidx"
        for path in (self.path, index):
            if not path.is_file():
                raise LiteError(
                    f"{path} is missing. WebQA's images are imgs.tsv and imgs.lineidx; docs/data.md says where from."
                )
        try:
            self.offsets = np.array(index.read_bytes().split(), dtype=np.int64)
        except ValueError as error:
            raise LiteError(f"{index} must hold one byte offset per line: {error}") from error
        self.bytes = self.path.stat().st_size
        self._file = os.open(self.path, os.O_RDONLY)

    def __reduce__(self):
        return open_archive, (self.folder,)

    def where(self, key: int) -> str:
        return f"{self.path}, image {key}"

    def missing(self, key: int) -> str:
        """Why the archive cannot hold the image, judged from the offsets alone; empty where it can."""
        line = key % LINES
        if line >= len(self.offsets):
            return f"imgs.lineidx ends after {len(self.offsets)} lines and the image would be on line {line + 1}"
        offset = int(self.offsets[line])
        if offset < 0:
            return "the archive is a subset without this image"
        return f"its offset {offset} is past the end of the file" if offset >= self.bytes else ""

    def row(self, key: int) -> bytes:
        """The image's line of `imgs.tsv`, without the line break.

        Raises:
            LiteError: There is no such line, or it is another image's.
        """
        if reason := self.missing(key):
            raise LiteError(f"{self.where(key)}: {reason}. Restore the archive.")
        position = int(self.offsets[key % LINES])
        parts: list[bytes] = []
        while chunk := os.pread(self._file, READ_AT_ONCE, position):
            line, found, _ = chunk.partition(b"\n")
            parts.append(line)
            if found:
                break
            position += len(chunk)
        row = b"".join(parts)
        name = row.partition(b"\t")[0].strip()
        if not name.isdigit() or int(name) != key:
            raise LiteError(
                f"{self.where(key)}: at the offset of line {key % LINES + 1} is {name[:20].decode(errors='replace')!r} "
                "instead. imgs.tsv and imgs.lineidx do not belong together; download both again."
            )
        return row

    def read(self, key: int) -> bytes:
        """The image file's bytes."""
        try:
            return base64.b64decode(self.row(key).partition(b"\t")[2].strip(), validate=True)
        except binascii.Error as error:
            raise LiteError(f"{self.where(key)}: line {key % LINES + 1} is not base64 ({error}).") from error


@functools.cache
def open_archive(folder: Path) -> Archive:
    """The archive in `folder`, opened once per process."""
    return Archive(folder)


def load_examples(folder: Path, split: str, limit: int | None, problems: Problems) -> list[Example]:
    """The questions of a split, in the file's order, each with the pool that WebQA mined for it.

    Documents are the facts: an image (title, caption, picture) or a text snippet. `answers` are whole sentences,
    `keywords` is what the official metric looks for. `category` is `Qcate`. The test split has no labels.
    """
    archive = _archive(folder, problems)
    examples: list[Example] = []
    for guid, record in records(folder / FILES[split], problems):
        if len(examples) == limit:
            break
        if record.get("split") == OFFICIAL_SPLITS[split]:
            example = _example(guid, record, split, archive, folder / FILES[split], problems)
            if example is not None:
                examples.append(example)
    return examples


def _archive(folder: Path, problems: Problems) -> Archive | None:
    try:
        return open_archive(folder)
    except LiteError as error:
        problems.add("missing archive", str(error))
        return None


def _example(
    guid: str, record: dict, split: str, archive: Archive | None, path: Path, problems: Problems
) -> Example | None:
    documents: dict[str, Document] = {}
    relevant: set[str] = set()
    try:
        question = unquoted(_text(record, "Q"))
        answers = [] if split == "test" else [unquoted(str(answer)) for answer in record["A"]]
        if not question or (split != "test" and not any(answers)):
            problems.add("empty question or answer", f"{path}, Guid {guid}: Q or A is empty.")
            return None
        for name in ("img_posFacts", "txt_posFacts", "img_negFacts", "txt_negFacts", "img_Facts", "txt_Facts"):
            for fact in record.get(name) or []:
                document = _document(fact, archive) if name.startswith("img") else _snippet(fact)
                if "pos" in name:
                    relevant.add(document.id)
                if document.image is None and document.kind == "image":
                    continue  # without the archive, which was reported once
                if isinstance(document.image, LazyImage) and (reason := archive.missing(document.image.key)):
                    problems.add("missing image", f"{path}, Guid {guid}: {document.image}: {reason}.")
                    continue
                documents.setdefault(document.id, document)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        problems.add("malformed question", f"{path}, Guid {guid}: not WebQA's layout ({error!r}).")
        return None
    if lost := sorted(relevant - documents.keys()):
        problems.add("question without its gold", f"{path}, Guid {guid}: its gold document {lost[0]} cannot be read.")
        return None
    if split != "test" and not relevant:
        problems.add("question without its gold", f"{path}, Guid {guid}: it has no positive fact.")
        return None
    if not documents:
        problems.add("question without documents", f"{path}, Guid {guid}: no document of its pool can be read.")
        return None
    return Example(
        id=guid,
        question=question,
        documents=tuple(documents.values()),
        relevant=frozenset(relevant),
        answers=tuple(answer for answer in answers if answer),
        category=str(record.get("Qcate", "")),
        split=split,
        keywords="" if split == "test" else keywords_of(record, answers),
        metric="webqa",
    )


def keywords_of(record: dict, answers: Sequence[str]) -> str:
    """`Keywords_A`; where it is hidden, the first answer stands in, as the organisers advise."""
    keywords = unquoted(str(record.get("Keywords_A") or ""))
    return answers[0] if keywords in HIDDEN_KEYWORDS else keywords


def _text(row: dict, name: str) -> str:
    if not isinstance(row[name], str):
        raise TypeError(f"{name} is {type(row[name]).__name__}, not text")
    return row[name].strip()


def _document(fact: dict, archive: Archive | None) -> Document:
    number = int(fact["image_id"])
    title, caption = (str(fact.get(name) or "").strip() for name in ("title", "caption"))
    # captions repeat the title
    text = caption.removeprefix(title).strip()
    return Document(str(number), "image", title or caption, text, archive and LazyImage(archive, number))


def _snippet(fact: dict) -> Document:
    return Document(_text(fact, "snippet_id"), "text", str(fact.get("title") or "").strip(), _text(fact, "fact"))


def unquoted(text: str) -> str:
    """Without the literal quotation marks that WebQA has around a whole question or answer.

    `"Is "Arcadian Landscape" old?"` loses the outer pair; `"Foo" or "Bar"` keeps both: a mark that opens an inner
    quotation follows a space, one that ends it does not.
    """
    text = text.strip()
    if len(text) < 2 or text[0] != '"' or text[-1] != '"':
        return text
    second = text.index('"', 1)
    wrapped = second == len(text) - 1 or text[second - 1].isspace()
    return text[1:-1].strip() if wrapped else text


def records(path: Path, problems: Problems) -> Iterator[tuple[str, dict]]:
    """The entries of a JSON file that is one large object, one at a time: the whole of WebQA's would take gigabytes."""
    try:
        with open(path, encoding="utf-8") as file:
            yield from _records(file, path, problems)
    except FileNotFoundError:
        raise LiteError(f"{path} is missing. docs/data.md says where to download WebQA.") from None
    except UnicodeDecodeError as error:
        raise LiteError(f"{path} is not UTF-8: {error}") from error


def _records(file, path: Path, problems: Problems) -> Iterator[tuple[str, dict]]:
    decoder, separators = json.JSONDecoder(), re.compile(r"[\s,]*")
    buffer, position, line, last = file.read(JSON_CHUNK), 0, 1, "the beginning"
    opening = re.compile(r"\ufeff?\s*\{").match(buffer)
    if opening is None:
        raise LiteError(f"{path}: must hold one JSON object by Guid, and begins with {buffer[:20]!r}.")
    position = opening.end()
    ended = False
    while True:
        position = separators.match(buffer, position).end()
        try:
            if buffer.startswith("}", position):
                return
            key, end = decoder.raw_decode(buffer, position)
            colon = re.compile(r"\s*:\s*").match(buffer, end)
            if colon is None or not isinstance(key, str):
                raise json.JSONDecodeError("Expecting a Guid and ':'", buffer, end)
            value, end = decoder.raw_decode(buffer, colon.end())
        except json.JSONDecodeError as error:
            if not ended and len(buffer) - position < LARGEST_RECORD:
                line += buffer.count("\n", 0, position)
                more = file.read(JSON_CHUNK)
                ended = not more
                buffer, position = buffer[position:] + more, 0
                continue
            place = line + buffer.count("\n", 0, error.pos)
            problems.add("bad JSON", f"{path}, line {place}, after {last}: {error.msg}.")
            resume = re.compile(r'"[^"\\]+"\s*:\s*\{').search(buffer, position + 1)
            if resume is None:
                return
            position = resume.start()
            continue
        position, last = end, f"Guid {key}"
        if isinstance(value, dict):
            yield key, value
        else:
            problems.add("malformed question", f"{path}, Guid {key}: not an object.")


def submission(example: Example, answer: str, sources: Sequence[str]) -> dict[str, Any]:
    """One entry of the official submission file: `{guid: {"sources": [...], "answer": ...}}`.

    Args:
        example: The question.
        answer: The answer as a sentence.
        sources: Ids of the documents that it rests on. Images are written as numbers, as the organisers do.
    """
    return {example.id: {"sources": [int(i) if i.isdigit() else i for i in sources], "answer": answer}}
