"""Real questions for benchmarks/pretrained.py, in lite's jsonl form, from the benchmarks' own files.

Whoever has the files names their folder; nothing of them is kept in the repository. Splits are by document: questions
that rest on one document, or on two with one text, are all in one split, and each question's pool of candidates is
drawn from its own split, so that no document of the test split is seen in training, not even as a negative.
"""

from __future__ import annotations

import gzip
import json
import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from lite.data.pools import Corpus, hard_pool
from lite.schema import Document, Example

CAPTION_CHARS = 300
POOL = 30
SHARES = {"train": 0.7, "dev": 0.1, "test": 0.2}


def webqa_captions(folder: Path) -> tuple[list[Document], list[Example]]:
    """WebQA's validation questions on images, over the images' captions; answers are the official keywords.

    Args:
        folder: With `val_image_queries.jsonl.gz` and `val_image_captions.jsonl.gz`.
    """
    texts = {row["image_id"]: " ".join(row["caption"].split()) for row in rows(folder / "val_image_captions.jsonl.gz")}
    examples = []
    for row in rows(folder / "val_image_queries.jsonl.gz"):
        relevant = frozenset(row["gold_image_ids"] or ())
        if not relevant or not str(row["gold_tier"]).startswith(("gold", "A")) or not relevant <= texts.keys():
            continue  # which captions are right is not known for sure
        answer = row["Keywords_A"] or row["A"][0]
        examples.append(Example(row["Guid"], row["Q"], (), relevant, (answer,), row["Qcate"]))
    used = sorted({i for example in examples for i in example.relevant})
    return [Document(i, "text", "", texts[i][:CAPTION_CHARS]) for i in used], examples


def rows(path: Path) -> list[dict]:
    """The lines of a compressed JSON lines file."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def split_by_document(documents: Iterable[Document], examples: Sequence[Example], seed: int = 0) -> dict[str, str]:
    """The split of each question, by its id. Questions with a document or a document's text in common stay together."""
    root: dict[str, str] = {}

    def find(i: str) -> str:
        while root.setdefault(i, i) != i:
            root[i] = root[root[i]]
            i = root[i]
        return i

    first_with: dict[str, str] = {}
    for document in documents:
        text = " ".join(f"{document.title} {document.text}".lower().split())
        root[find(document.id)] = find(first_with.setdefault(text, document.id))
    for example in examples:
        first, *others = sorted(example.relevant)
        for other in others:
            root[find(other)] = find(first)
    together = defaultdict(list)
    for example in examples:
        together[find(min(example.relevant))].append(example.id)
    groups = [sorted(group) for _, group in sorted(together.items())]
    random.Random(seed).shuffle(groups)
    found, ends = {}, []
    for share in SHARES.values():
        ends.append(share * len(examples) + (ends[-1] if ends else 0))
    for group in groups:
        split = next((name for name, end in zip(SHARES, ends, strict=True) if len(found) < end), "test")
        found |= dict.fromkeys(group, split)
    return found


def write_jsonl(documents: Sequence[Document], examples: Sequence[Example], path: Path) -> dict[str, int]:
    """Write the file, each question with a pool out of its own split. Returns the number of questions per split."""
    split = split_by_document(documents, examples)
    by_id = {document.id: document for document in documents}
    lines = [{"id": d.id, "kind": d.kind, "title": d.title, "text": d.text} for d in documents]
    counts = {}
    for name in SHARES:
        of_split = [example for example in examples if split[example.id] == name]
        own = sorted({i for example in of_split for i in example.relevant})
        corpus = Corpus([by_id[i] for i in own])
        counts[name] = len(of_split)
        for example in of_split:
            pool = hard_pool(example, corpus, POOL)
            lines.append(
                {
                    "id": example.id, "question": example.question, "relevant": sorted(example.relevant),
                    "answers": list(example.answers), "category": example.category, "split": name,
                    "documents": [document.id for document in pool.documents],
                }
            )  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
    return counts
