"""The bundled corpus: 194 national flags and 582 texts of the CIA World Factbook, 1,143 questions, split by country.

`tools.flags_corpus` rebuilds the folder from two registry packages; NOTICE names their licences.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

from lite.schema import Document, Example

FOLDER = Path(__file__).parent / "flags_factbook"
SPLITS = ("train", "dev", "test")


@cache
def load_corpus() -> dict[str, Document]:
    """Every document by id. Ids read `img:<country>` and `txt:<country>:<topic>`."""
    corpus = {}
    for line in (FOLDER / "docs.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        image = FOLDER / row["path"] if row["modality"] == "image" else None
        corpus[row["id"]] = Document(row["id"], row["modality"], row["title"], row.get("text", ""), image)
    return corpus


def load_examples(split: str) -> list[Example]:
    """The questions of a split, each with its bundled pool of 17 or 18 candidates. `category` is the kind:
    `text`, `image`, `text+image`, `image+text` or `image+image`; the last three need two documents."""
    corpus = load_corpus()
    return [
        Example(
            id=row["id"],
            question=row["question"],
            documents=tuple(corpus[i] for i in row["candidate_ids"]),
            relevant=frozenset(row["gold_ids"]),
            answers=tuple(row["answers_short"]),
            category=row["kind"],
            split=split,
        )
        for row in map(json.loads, (FOLDER / f"questions_{split}.jsonl").read_text(encoding="utf-8").splitlines())
    ]


def load_candidates(split: str) -> list[Document]:
    """Where negatives for a split may come from: for `train` the documents of its own countries, so that the countries
    of `dev` and `test` stay unseen; for the others the whole corpus."""
    corpus = list(load_corpus().values())
    if split != "train":
        return corpus
    countries = {country(i) for example in load_examples(split) for i in example.relevant}
    return [document for document in corpus if country(document.id) in countries]


def country(document_id: str) -> str:
    """The two-letter code in a document's id."""
    return document_id.split(":")[1]
