"""MultimodalQA (Talmor et al., ICLR 2021) as it is distributed: questions over texts, tables and images of Wikipedia.

A folder, or its `dataset` folder, holds `MMQA_{train,dev,test}.jsonl.gz`, `MMQA_{texts,tables,images}.jsonl.gz` and the
unpacked `final_dataset_images`. Files may be unzipped.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from lite.data.images import Folder, LazyImage
from lite.data.lines import read_lines
from lite.data.problems import Problems
from lite.metrics.multimodalqa import answer_list
from lite.schema import Document, Example, LiteError

IMAGE_FOLDERS = ("final_dataset_images", "images")
PARTS = {"text": "texts", "table": "tables", "image": "images"}  # `doc_part` to context file
# Stage 1's default `document_chars`: within it the prompt does not cut a table once more, in the middle of a row.
TABLE_CHARS = 2000


def load_examples(folder: Path, split: str, limit: int | None, problems: Problems) -> list[Example]:
    """The questions of a split with their pools: texts, images and one table each.

    `answers` are all parts of one answer, as strings. `category` is the question type, such as `Compose(ImageQ,TextQ)`.
    A gold document outside the pool (there is one such question in dev) is added to it and counted in
    `problems.notes`. The test split has no labels.
    """
    path = _file(folder, f"MMQA_{split}")
    if path is None:
        raise LiteError(f"{folder} holds no MMQA_{split}.jsonl.gz. docs/data.md says where to download MultimodalQA.")
    questions = []
    for line, row in read_lines(path, problems):
        if len(questions) == limit:
            break
        if question := _question(row, split, f"{path}, line {line}", problems):
            questions.append(question)
    wanted = {part: {i for question in questions for i in question["pool"][part]} for part in PARTS}
    documents: dict[str, Document] = {}
    absent: set[str] = set()  # known to be broken, and reported
    for part, ids in wanted.items():
        documents |= _contexts(folder, part, ids, absent, problems)
    return [example for question in questions if (example := _example(question, documents, absent, split, problems))]


def _question(row: dict, split: str, where: str, problems: Problems) -> dict | None:
    """The few fields that we keep: a row's metadata is large."""
    try:
        where = f"{where}, qid {row['qid']}"
        metadata = row["metadata"]
        pool = {
            "text": list(metadata["text_doc_ids"]),
            "table": [metadata["table_id"]] if metadata.get("table_id") else [],
            "image": list(metadata["image_doc_ids"]),
        }
        gold: dict[str, str] = {}
        if split != "test":
            # the same document comes once for every fact that it supports
            gold = {context["doc_id"]: context["doc_part"] for context in row["supporting_context"]}
        unknown = next((part for part in gold.values() if part not in PARTS), None)
        if unknown is not None:
            problems.add("unknown modality", f"{where}: supporting_context names the modality {unknown!r}.")
            return None
        answers = [] if split == "test" else [str(answer["answer"]).strip() for answer in row["answers"]]
        if not str(row["question"]).strip() or (split != "test" and (not answers or not all(answers))):
            problems.add("empty question or answer", f"{where}: question or answers are empty.")
            return None
        if split != "test" and not gold:
            problems.add("question without its gold", f"{where}: supporting_context is empty.")
            return None
        for document_id, part in gold.items():
            if all(document_id not in ids for ids in pool.values()):
                pool[part].append(document_id)
                problems.notes["gold document outside its pool, added"] += 1
        return {
            "where": where,
            "id": row["qid"],
            "question": row["question"].strip(),
            "answers": tuple(answers),
            "category": metadata.get("type", ""),
            "pool": pool,
            "gold": frozenset(gold),
        }
    except (KeyError, TypeError, AttributeError) as error:
        problems.add("malformed question", f"{where}: not MultimodalQA's layout ({error!r}).")
        return None


def _example(
    question: dict, documents: dict[str, Document], absent: set[str], split: str, problems: Problems
) -> Example | None:
    pool = list(dict.fromkeys(i for ids in question["pool"].values() for i in ids))
    for i in pool:
        if i not in documents and i not in absent:
            problems.add("missing document", f"{question['where']}: its document {i} is not in the context files.")
    if lost := sorted(question["gold"] - documents.keys()):
        problems.add("question without its gold", f"{question['where']}: gold document {lost[0]} cannot be read.")
        return None
    kept = tuple(documents[i] for i in pool if i in documents)
    if not kept:
        problems.add("question without documents", f"{question['where']}: no document of its pool can be read.")
        return None
    return Example(
        question["id"], question["question"], kept, question["gold"], question["answers"], question["category"], split,
        metric="multimodalqa",
    )  # fmt: skip


def _contexts(folder: Path, part: str, ids: set[str], absent: set[str], problems: Problems) -> dict[str, Document]:
    """The wanted documents of a modality; those that are broken go to `absent`."""
    if not ids:
        return {}
    path = _file(folder, f"MMQA_{PARTS[part]}")
    if path is None:
        problems.add("missing file", f"{folder} holds no MMQA_{PARTS[part]}.jsonl.gz.")
        absent |= ids
        return {}
    build = _image_builder(folder, problems) if part == "image" else {"text": _text, "table": _table}[part]
    if build is None:
        absent |= ids
        return {}
    documents = {}
    for line, row in read_lines(path, problems):
        try:
            if row["id"] in ids:
                document = build(row, f"{path}, line {line}")
                if document is None:
                    absent.add(row["id"])
                else:
                    documents[document.id] = document
        except (KeyError, TypeError, AttributeError) as error:
            problems.add("malformed document", f"{path}, line {line}: not MultimodalQA's layout ({error!r}).")
    return documents


def _text(row: dict, where: str) -> Document:
    return Document(row["id"], "text", row["title"].strip(), row["text"].strip())


def _table(row: dict, where: str) -> Document:
    name = (row["table"].get("table_name") or "").strip()
    title = row["title"].strip()
    return Document(row["id"], "table", f"{title}: {name}" if name else title, table_markdown(row["table"]))


def _image_builder(folder: Path, problems: Problems) -> Callable[[dict, str], Document | None] | None:
    images = next((base / name for base in _bases(folder) for name in IMAGE_FOLDERS if (base / name).is_dir()), None)
    if images is None:
        problems.add(
            "missing file", f"{folder} holds no {IMAGE_FOLDERS[0]}: unpack MultimodalQA's image archive there."
        )
        return None
    store, present = Folder(images), {entry.name for entry in os.scandir(images)}

    def build(row: dict, where: str) -> Document | None:
        if row["path"] not in present:
            problems.add("missing image", f"{where}: {images / row['path']} does not exist (document {row['id']}).")
            return None
        return Document(row["id"], "image", row["title"].strip(), "", LazyImage(store, row["path"]))

    return build


def table_markdown(table: dict, max_chars: int = TABLE_CHARS) -> str:
    """A table as Markdown: header, then rows; links become their text.

    Args:
        table: `{"header": [{"column_name"}], "table_rows": [[{"text", "links"}]]}`.
        max_chars: A longer table loses rows in its middle; a row says how many.
    """
    header = [_cell(column.get("column_name") or "") for column in table["header"]]
    rows = [[_cell(_cell_text(cell)) for cell in row] for row in table["table_rows"]]
    width = max([len(header), *map(len, rows)], default=0)
    lines = ["| " + " | ".join(row + [""] * (width - len(row))) + " |" for row in [header, *rows]]
    return "\n".join([lines[0], "|" + "---|" * width, *_fit(lines[1:], max_chars - len(lines[0]) - 4 * width - 3)])


def _fit(lines: list[str], max_chars: int) -> list[str]:
    """Rows from both ends, in turn, as long as they fit together with the mark."""
    if sum(len(line) + 1 for line in lines) <= max_chars:
        return lines
    budget, head, tail = max_chars - len(_mark(len(lines))) - 1, 0, 0
    while True:
        line = lines[head] if head <= tail else lines[-1 - tail]
        budget -= len(line) + 1
        if budget < 0:
            return [*lines[:head], _mark(len(lines) - head - tail), *lines[len(lines) - tail :]]
        head, tail = (head + 1, tail) if head <= tail else (head, tail + 1)


def _mark(count: int) -> str:
    return f"| ... {count} rows left out ... |"


def _cell_text(cell: dict) -> str:
    text = cell.get("text") or ""
    return text if text.strip() else ", ".join(link.get("text") or "" for link in cell.get("links") or [])


def _cell(text: str) -> str:
    text = re.sub(r"\[\[(?:[^\[\]|]*\|)?([^\[\]|]*)\]\]", r"\1", text)  # [[page|text]] and [[page]]
    text = re.sub(r"\[([^\[\]]+)\]\([^()\s]*\)", r"\1", text)  # [text](address)
    return " ".join(text.split()).replace("|", "\\|")


def _bases(folder: Path) -> tuple[Path, Path]:
    return folder, folder / "dataset"


def _file(folder: Path, stem: str) -> Path | None:
    candidates = (base / f"{stem}{ending}" for base in _bases(folder) for ending in (".jsonl.gz", ".jsonl"))
    return next((path for path in candidates if path.is_file()), None)


def submission(example: Example, answer: str | Iterable[str], sources: Sequence[str] = ()) -> dict[str, list[str]]:
    """One entry of the official submission file: `{qid: [answers]}`.

    Args:
        example: The question.
        answer: The answers, or one text in which `;` or line breaks separate them.
        sources: Not part of this benchmark's submissions; taken so that both writers are called alike.
    """
    parts = answer_list(answer) if isinstance(answer, str) else answer
    return {example.id: [part.strip() for part in parts if part.strip()]}
