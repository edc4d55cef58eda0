"""What a search finds: 84 questions in eight languages over 1,040 documents of ten kinds.

    python benchmarks/search.py [--embedding MODEL] [--against COMMIT]       (writes benchmarks/results/search.json)

The texts are self-made (search.yaml): for each of eight languages 13 things, and ten kinds of documents of each, each
kind in a file format of its own (Arabic, Chinese and Japanese have text files in place of PDFs, for which they would
need fonts). A question names a thing and what one kind of document says, both in other forms of their words than the
document has: `price of a dishwasher` for a list with the columns `Price` and `Supplier` and the row `dishwashers`. So
ten documents share its thing and thirteen its topic, and one is right. Questions under `other` share no stem with their
document, or are of another language; they are reported apart.

- words: `Library.search` of a library without an embedding.
- reranked: the 20 first of those in the order of P(relevant) of the embedded model. It knows flags and countries only,
  so this shows what a filter costs that was not trained for the documents, not what a trained one brings.
- hybrid: with --embedding, a sentence-transformers model (hub id or folder).
- before: with --against, by the code of another commit, in the same run.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import yaml
from matplotlib.backends.backend_pdf import PdfPages
from matplotlib.figure import Figure
from openpyxl import Workbook
from PIL import Image

HERE = Path(__file__).parent
OUT = HERE / "results" / "search.json"
LANGUAGES = yaml.safe_load((HERE / "search.yaml").read_text("utf-8"))
KINDS = ("txt", "md", "html", "docx", "csv", "tsv", "xlsx", "rst", "pdf", "png")
WITHOUT_PDF = ("ar", "ja", "zh")
FOUND = 20
WORD = '<w:document xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"><w:body>{}</w:body></w:document>'
TYPES = (
    '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types"><Default Extension="xml" '
    'ContentType="application/xml"/><Default Extension="rels" '
    'ContentType="application/vnd.openxmlformats-package.relationships+xml"/><Override PartName="/word/document.xml" '
    'ContentType="application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml"/></Types>'
)
RELATIONS = (
    '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships"><Relationship Id="a" Type='
    '"http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument" Target="word/document.xml"/>'
    "</Relationships>"
)


def make_folder(folder: Path) -> None:
    """One file per document. A name is a number, but for a photo, which is found by its name alone."""
    rng = random.Random(0)
    for language, texts in LANGUAGES.items():
        for thing, name in enumerate(texts["things"]):
            for kind in KINDS:
                letters = "".join(rng.choices("ABCDEFGHKLMNPRSTUVWXYZ", k=3))
                code = f"{letters[:2]}-{rng.randint(1000, 9999)}/{letters[2]}"
                text = texts[kind].format(t=name, n=rng.randint(3, 60), c=code)
                path = folder / place_of(language) / kind / file_name(language, thing, kind, text)
                path.parent.mkdir(parents=True, exist_ok=True)
                write(path, text)


def place_of(language: str) -> str:
    """A folder's name: `de` or `es` would be a word of the questions."""
    return f"set{list(LANGUAGES).index(language)}"


def file_name(language: str, thing: int, kind: str, text: str) -> str:
    if kind == "png":
        return f"{thing:02} {text}.png"
    return f"{thing:02}.{'txt' if kind == 'pdf' and language in WITHOUT_PDF else kind}"


def write(path: Path, text: str) -> None:
    match path.suffix:
        case ".png":
            Image.new("RGB", (60, 40), "grey").save(path)
        case ".pdf":
            with PdfPages(path) as pdf:
                page = Figure(figsize=(6, 3))
                page.text(0.05, 0.9, text.replace(". ", ".\n"), fontsize=8, va="top")
                pdf.savefig(page)
        case ".xlsx":
            book = Workbook()
            for row in text.splitlines():
                book.active.append(row.split("|"))
            book.save(path)
        case ".docx":
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr("[Content_Types].xml", TYPES)
                archive.writestr("_rels/.rels", RELATIONS)
                archive.writestr("word/document.xml", WORD.format(f"<w:p><w:r><w:t>{text}</w:t></w:r></w:p>"))
        case ".csv" | ".tsv":
            with path.open("w", encoding="utf-8", newline="") as file:
                delimiter = "," if path.suffix == ".csv" else "\t"
                csv.writer(file, delimiter=delimiter).writerows(line.split(delimiter) for line in text.splitlines())
        case _:
            path.write_text(text, "utf-8")


def questions() -> list[tuple[str, str, str, bool]]:
    """(question, language, where its document is, whether they share a stem)."""
    return [
        (question, language, f"/{place_of(language)}/{kind}/{thing:02}", group == "questions")
        for language, texts in LANGUAGES.items()
        for group in ("questions", "other")
        for question, thing, kind in texts[group]
    ]


# ------------------------------------------------------------------------------------------------------------ measuring


def search(folder: str, address: str, embedding: str, rerank: bool = False) -> list[list[str]]:
    """Ids of what each question finds. This runs on the code of older commits, too."""
    from lite.library.store import Library

    library = Library.open(address, create=True, embedding=embedding)
    library.index(folder, ocr=False)
    found = [[hit.document for hit in library.search(question, FOUND)] for question, *_ in questions()]
    if rerank:
        from lite.rag import Rag

        rag = Rag.load("tiny")
        for place, (question, *_) in enumerate(questions()):
            if found[place]:
                scores = np.asarray(rag.relevance(question, found[place]))
                found[place] = [found[place][i] for i in np.argsort(-scores, kind="stable")]
    return [[document.id for document in documents] for documents in found]


def searched(folder: Path, address: Path, embedding: str, rerank: bool, code: Path) -> list[list[str]]:
    """`search` in a process of its own, by the code of a folder."""
    command = [sys.executable, __file__, "--search", str(folder), str(address), embedding, str(rerank)]
    environment = os.environ | {"PYTHONPATH": str(code)}
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment).stdout)


def figures(found: list[list[str]], name_missed: bool) -> dict:
    """hit@1, hit@5 and nDCG@10, with 95 % intervals over questions; hit@5 by language."""
    from lite.metrics import bootstrap

    asked = questions()
    places = [
        next((p for p, i in enumerate(ids) if where in i), None)
        for ids, (_, _, where, _) in zip(found, asked, strict=True)
    ]

    def of(chosen: list[int | None]) -> dict:
        gains = [0.0 if p is None or p >= 10 else 1 / float(np.log2(p + 2)) for p in chosen]
        hits = {f"hit@{k}": [float(p is not None and p < k) for p in chosen] for k in (1, 5)}
        return {name: bootstrap.mean(values) for name, values in (hits | {"ndcg@10": gains}).items()}

    stem = [p for p, (*_, shares) in zip(places, asked, strict=True) if shares]
    other = [p for p, (*_, shares) in zip(places, asked, strict=True) if not shares]
    hits = {language: [] for language in LANGUAGES}
    for place, (_, language, _, shares) in zip(places, asked, strict=True):
        if shares:
            hits[language].append(place is not None and place < 5)
    by_language = {language: float(np.mean(found)) for language, found in hits.items()}
    missed = [q for p, (q, _, _, s) in zip(places, asked, strict=True) if s and (p is None or p >= 5)]
    return {
        "share a stem": {
            "questions": len(stem),
            **of(stem),
            "hit@5 by language": by_language,
            "missed": missed if name_missed else len(missed),
        },
        "share none": {"questions": len(other), **of(other)},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--embedding", default="none", metavar="MODEL")
    parser.add_argument("--against", metavar="COMMIT", help="Also by the code of this commit.")
    parser.add_argument(
        "--search", nargs=4, metavar=("FOLDER", "ADDRESS", "EMBEDDING", "RERANK"), help=argparse.SUPPRESS
    )
    options = parser.parse_args()
    if options.search:
        folder, address, embedding, rerank = options.search
        print(json.dumps(search(folder, address, embedding, rerank == "True")))
        return
    code = HERE.parent
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "texts"
        make_folder(folder)
        documents = sum(path.is_file() for path in folder.rglob("*"))
        ways = {"words": ("none", False, code), "words, reranked by the embedded model": ("none", True, code)}
        if options.embedding != "none":
            ways["hybrid"] = (options.embedding, False, code)
        if options.against:
            before = Path(scratch) / "before"
            git = ["git", "-C", str(code), "worktree"]
            subprocess.run([*git, "add", "--detach", "--quiet", str(before), options.against], check=True)
            ways[f"words, at {options.against}"] = ("none", False, before)
        result = {
            "machine": platform.machine(), "documents": documents, "languages": len(LANGUAGES), "kinds": len(KINDS),
            "embedding": Path(options.embedding).name,
        }  # fmt: skip
        try:
            for name, (embedding, rerank, place) in ways.items():
                found = searched(folder, Path(scratch) / name, embedding, rerank, place)
                result[name] = figures(found, name == "words")
                shown = {
                    k: round(v["value"], 3)
                    for k, v in result[name]["share a stem"].items()
                    if "@" in k and "by" not in k
                }
                print(f"{name}: {shown}; missed {result[name]['share a stem']['missed'] or 0}", flush=True)
        finally:
            if options.against:
                subprocess.run([*git, "remove", "--force", str(before)], check=True)
    OUT.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n")
    print(f"Results: {OUT}")


if __name__ == "__main__":
    main()
