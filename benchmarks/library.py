"""A library of 10,000 documents: time and memory to build it, how long a query takes as it grows, what it finds.

    python benchmarks/library.py          (under ten minutes of one core; writes benchmarks/results/library.json)

- Index: a folder of generated Markdown notes, CSV tables, PDF pages set from the Factbook's texts, and all flags. Ours
  against the loop that one would write by hand: read a file, add its rows to the table, next; one index at the end.
  Memory is the peak of the resident sizes of the program and its readers together, sampled 20 times a second.
- Query: p50 and p95 of 200 questions on libraries of 1,000, 10,000 and 100,000 generated notes, 20 hits each.
- Recall@20: the flags corpus, the questions of the test split, over all 776 documents instead of their pools. Hybrid
  search needs an embedding model from a hub; without one it is not measured.
"""

from __future__ import annotations

import argparse
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

from lite.datasets import flags
from lite.library import Library, _key, _schema, as_row
from lite.metrics import bootstrap
from lite.readers import Part, read_file

OUT = Path(__file__).parent / "results" / "library.json"
TEXTS = [document.text for document in flags.load_corpus().values() if document.text]
SENTENCES = [sentence.strip() + "." for text in TEXTS for sentence in text.split(". ") if len(sentence) > 20]


def note(rng: random.Random, number: int) -> str:
    """A paragraph that no other equals."""
    return " ".join(rng.sample(SENTENCES, 5)) + f" Note number {number}."


def make_folder(folder: Path) -> None:
    """About 10,000 documents: 2,000 notes of 4 sections, 20 PDFs of 50 pages, 30 tables, 776 of flags."""
    rng = random.Random(0)
    for number in range(2000):
        sections = (f"# Section {part}\n\n{note(rng, 4 * number + part)}" for part in range(4))
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


def build_ours(folder: Path, address: Path) -> int:
    return Library.open(address, create=True).index(folder, ocr=False).documents


def build_by_loop(folder: Path, address: Path) -> int:
    """What one would write: no batches, no second process, no transactions over a file's change."""
    table = lancedb.connect(address).create_table("documents", schema=_schema("none"))
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        key = _key(folder, path)
        table.add([as_row(part, folder, path, key, n, "") for n, part in enumerate(read_file(path, ocr=False))])
    table.create_index("searchable", config=FTS())
    return table.count_rows()


def measured(build: Callable[[Path, Path], int], folder: Path, address: Path) -> dict:
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
    documents = build(folder, address)
    seconds = time.perf_counter() - start
    done.set()
    watcher.join()
    return {"documents": documents, "seconds": round(seconds, 2), "peak_mib": round(peak / 2**20)}


BUILDS = {"ours": build_ours, "ours, nothing changed": build_ours, "plain loop": build_by_loop}


def index_figures(scratch: Path) -> dict:
    """Each way in a process of its own, over the same folder."""
    folder = scratch / "folder"
    folder.mkdir()
    make_folder(folder)
    figures = {}
    for name in BUILDS:
        address = scratch / ("loop" if name == "plain loop" else "ours")
        command = [sys.executable, __file__, "--build", name, str(folder), str(address)]
        figures[name] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        print(f"{name}: {figures[name]}", flush=True)
    return figures


# -------------------------------------------------------------------------------------------------------------- search


def latency_figures(scratch: Path) -> dict:
    """Milliseconds per query by size of the library."""
    rng = random.Random(1)
    library = Library.open(scratch / "growing", create=True)
    questions = [example.question for example in flags.load_examples("test")][:200]
    root = scratch / "generated"
    figures = {}
    for size in (1_000, 10_000, 100_000):
        for start in range(len(library), size, 1000):
            rows = [
                as_row(
                    Part("", "text", "", note(rng, n)), root, root / f"{n}.txt", _key(root, root / f"{n}.txt"), 0, ""
                )
                for n in range(start, start + 1000)
            ]
            library._write(rows)
        library._optimise()
        for question in questions[:5]:  # opens the index
            library.search(question)
        times = []
        for question in questions:
            start = time.perf_counter()
            hits = library.search(question)
            times.append(1000 * (time.perf_counter() - start))
            assert hits
        figures[str(size)] = {f"p{q}_ms": round(float(np.percentile(times, q)), 2) for q in (50, 95)}
        print(f"{size:,} documents: {figures[str(size)]}", flush=True)
    return figures


def recall_figures(scratch: Path) -> dict:
    """Share of the relevant documents among the first 20 of the whole corpus."""
    ids = write_flags(scratch / "atlas")
    library = Library.open(scratch / "atlas library", create=True)
    library.index(scratch / "atlas", ocr=False)
    examples = flags.load_examples("test")
    recalls = []
    for example in examples:
        found = {ids[hit.document.id.split("#")[0]] for hit in library.search(example.question, 20)}
        recalls.append(len(found & example.relevant) / len(example.relevant))
    figures = {"all": bootstrap.mean(recalls)} | {
        kind: bootstrap.mean([r for r, e in zip(recalls, examples, strict=True) if e.category == kind])
        for kind in dict.fromkeys(example.category for example in examples)
    }
    print(f"recall@20 over {len(library)} documents: {figures['all']}", flush=True)
    return {"questions": len(examples), "documents": len(ids), "bm25": figures, "hybrid": "not measured: no hub"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", nargs=3, metavar=("NAME", "FOLDER", "ADDRESS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.build:
        name, folder, address = options.build
        print(json.dumps(measured(BUILDS[name], Path(folder), Path(address))))
        return
    with tempfile.TemporaryDirectory() as scratch:
        result = {
            "machine": f"{platform.machine()}, {psutil.cpu_count()} cores",
            "lancedb": lancedb.__version__,
            "index": index_figures(Path(scratch)),
            "query": latency_figures(Path(scratch)),
            "recall@20": recall_figures(Path(scratch)),
        }
    OUT.write_text(json.dumps(result, indent=2) + "\n")
    print(f"Results: {OUT}")


if __name__ == "__main__":
    main()
