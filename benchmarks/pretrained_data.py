"""Real questions for benchmarks/pretrained.py, in lite's jsonl form, from the benchmarks' own files.

Whoever has the files names their folder; nothing of them is kept in the repository. Splits are by document: questions
that rest on one document, or on two with one text, are all in one split, and each question's pool of candidates is
drawn from its own split, so that no document of the test split is seen in training, not even as a negative.
"""

from __future__ import annotations

import gzip
import json
import random
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from lite.data.jsonl import connected
from lite.data.pools import Corpus, hard_pool
from lite.library.words import words
from lite.schema import Document, Example
from lite.train.chains import mentions

CAPTION_CHARS = 300
PIECE_CHARS = 200
CAPTION_SHARES = {"train": 0.7, "dev": 0.1, "test": 0.2}
PASSAGE_SHARES = {"train": 0.5, "dev": 0.1, "test": 0.4}  # there are few: half of them to test on


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


def multimodalqa_passages(folder: Path) -> tuple[list[Document], list[Example]]:
    """MultimodalQA's training questions on texts whose one short answer stands in a passage, over pieces of passages.

    A passage is cut at sentences, as the library cuts files, so that several fit a small model's prompt. Of each text
    that the question rests on, one piece counts as relevant: that which holds the answer, else the one with most words
    of the question. Questions on two texts need both (category `two passages`).

    Args:
        folder: With `mini_train_questions.jsonl.gz` and `mini_train_texts.jsonl.gz`.
    """
    pieces: dict[str, list[Document]] = {}
    for row in rows(folder / "mini_train_texts.jsonl.gz"):
        parts = cut(" ".join(row["text"].split()), PIECE_CHARS)
        pieces[row["id"]] = [Document(f"{row['id']}-{n}", "text", row["title"], part) for n, part in enumerate(parts)]
    examples = []
    for row in rows(folder / "mini_train_questions.jsonl.gz"):
        texts = list(dict.fromkeys(part["doc_id"] for part in row["supporting_context"]))
        answers = [str(answer["answer"]) for answer in row["answers"]]
        if len(answers) != 1 or not set(texts) <= pieces.keys():
            continue
        asked = set(words(row["question"]))

        def fit(piece: Document, answer: str = answers[0], asked: set[str] = asked) -> tuple[bool, int]:
            return mentions(piece.text, answer), len(asked & set(words(f"{piece.title} {piece.text}")))

        relevant = [max(pieces[text], key=fit) for text in texts]
        if any(mentions(piece.text, answers[0]) for piece in relevant):
            category = "one passage" if len(relevant) == 1 else "two passages"
            ids = frozenset(piece.id for piece in relevant)
            examples.append(Example(row["qid"], row["question"], (), ids, (answers[0],), category))
    return [piece for parts in pieces.values() for piece in parts], examples


def cut(text: str, most: int) -> list[str]:
    """Pieces of whole sentences with at most so many characters; a longer sentence is a piece of its own."""
    pieces = [""]
    for sentence in re.split(r"(?<=[.!?])\s+", text):
        longer = f"{pieces[-1]} {sentence}".strip()
        if pieces[-1] and len(longer) > most:
            pieces.append(sentence)
        else:
            pieces[-1] = longer
    return pieces


def rows(path: Path) -> list[dict]:
    """The lines of a compressed JSON lines file."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def split_by_document(
    documents: Iterable[Document], examples: Sequence[Example], shares: Mapping[str, float], seed: int = 0
) -> dict[str, str]:
    """The split of each question, by its id. Questions with a document or a document's text in common stay together,
    as do those on pieces of one text (`ID-0`, `ID-1`)."""
    shared: list[Sequence[str]] = []
    first_with: dict[str, str] = {}
    for document in documents:
        text = " ".join(f"{document.title} {document.text}".lower().split())
        shared.append((f"whole {source_of(document.id)}", first_with.setdefault(text, document.id), document.id))
    find = connected([*shared, *(sorted(example.relevant) for example in examples)])
    together = defaultdict(list)
    for example in examples:
        together[find(min(example.relevant))].append(example.id)
    groups = [sorted(group) for _, group in sorted(together.items())]
    random.Random(seed).shuffle(groups)
    found, ends = {}, []
    for share in shares.values():
        ends.append(share * len(examples) + (ends[-1] if ends else 0))
    for group in groups:
        split = next((name for name, end in zip(shares, ends, strict=True) if len(found) < end), "test")
        found |= dict.fromkeys(group, split)
    return found


def source_of(document: str) -> str:
    """The id of the text that a piece was cut from; of what is no piece, its own."""
    return re.sub(r"-\d+$", "", document)


def write_jsonl(
    documents: Sequence[Document], examples: Sequence[Example], shares: Mapping[str, float], pool_size: int, path: Path
) -> dict[str, int]:
    """Write the file, each question with a pool out of its own split. Returns the number of questions per split."""
    split = split_by_document(documents, examples, shares)
    by_id = {document.id: document for document in documents}
    lines = [{"id": d.id, "kind": d.kind, "title": d.title, "text": d.text} for d in documents]
    counts = {}
    pieces = defaultdict(list)
    for document in documents:
        pieces[source_of(document.id)].append(document.id)
    for name in shares:
        of_split = [example for example in examples if split[example.id] == name]
        sources = sorted({source_of(i) for example in of_split for i in example.relevant})
        corpus = Corpus([by_id[i] for source in sources for i in pieces[source]])
        counts[name] = len(of_split)
        for example in of_split:
            pool = hard_pool(example, corpus, pool_size)
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
