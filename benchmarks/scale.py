"""What more workers bring on this machine, what Ray costs, and what a million or a billion documents would take.

    python benchmarks/scale.py [--questions 48] [--files 1200]     (minutes)

Writes benchmarks/results/scale.json and, from it, the tables of docs/scaling.md.

- Answering: the shipped adapters on the embedded model over questions of the flags data, by the plain loop and by Ray
  with 1, 2 and 4 workers. `seconds` is all of it, model loading and Ray's start included; `per_second` counts from the
  first finished partition to the last, what a long run comes to.
- Indexing: generated Markdown notes of two documents each, the same four ways.
- Model: costs per document, measured here, times the number of documents; for cards, which were not measured, floating
  point operations over an assumed share of a card's peak. Every assumption is in the result.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from readme import write_sections
from rich.console import Console
from transformers import AutoProcessor

from lite.config.model import ModelConfig
from lite.data.sources import load_examples
from lite.evaluate.engine import transformers_engine
from lite.evaluate.on_ray import answer_on_ray
from lite.library.on_ray import read_on_ray
from lite.library.store import Library
from lite.ray import connected
from lite.runs import SHIPPED, TINY
from lite.schema import Example
from lite.stages.prompts import stage1_prompt
from lite.train.rows import prompt_lengths

ROOT = Path(__file__).parents[1]
OUT = ROOT / "benchmarks" / "results" / "scale.json"
WORKERS = (1, 2, 4)
PARTITION, BATCH = 4, 32
QUIET = Console(quiet=True)

ASSUMED = {
    "documents per question": 20,
    "tokens per document": 700,  # an image of 512 x 512 pixels (256) and 440 of text, question and instruction
    "parameters": 4e9,  # Qwen3-VL-4B
    "operations per parameter and token": 2,
    "stage 2: prompt tokens per question": 3000,
    "stage 2: completion tokens per question": 200,
    "completions decoded at once": 64,
    "peak of a card, operations per second": 165e12,  # RTX 4090, bf16, dense
    "share of the peak in prefill": 0.35,
    "bytes per second of a card's memory": 1.0e12,
    "share of that in decoding": 0.5,
    "bytes of the weights": 2.7e9,  # 4 bits, with what is not quantised
    "bytes of a cached token": 147e3,
    "cards": 8,
    "cores that index": 64,
}


def answering(questions: int, folder: Path) -> dict[str, dict]:
    """Seconds and rates of the plain loop and of Ray, and what a question costs."""
    examples = load_examples("flags", "test", questions)
    start = partial(transformers_engine, ModelConfig(), SHIPPED / "stage1", SHIPPED / "stage2", BATCH)
    begun = time.perf_counter()
    answer = start()
    loaded = time.perf_counter()
    parts = [examples[i : i + PARTITION] for i in range(0, len(examples), PARTITION)]
    for part in parts:  # by partition, too: else the plain loop would gain by larger batches
        answer(part, None, QUIET)
    ended = time.perf_counter()
    found = {"plain": {"seconds": ended - begun, "per_second": len(examples) / (ended - loaded)}}
    for workers in WORKERS:
        place = folder / f"answers-{workers}"
        begun = time.perf_counter()
        answer_on_ray(start, examples, place, PARTITION, workers, QUIET)
        seconds = time.perf_counter() - begun
        files = sorted(place.iterdir(), key=lambda path: path.stat().st_mtime)
        between = files[-1].stat().st_mtime - files[0].stat().st_mtime
        found[f"ray, {workers}"] = {"seconds": seconds, "per_second": PARTITION * (len(files) - 1) / between}
    size = sum(path.stat().st_size for path in place.iterdir())
    return found | {"unit": unit_of_answers(examples, size)}


def unit_of_answers(examples: list[Example], size: int) -> dict[str, float]:
    """Bytes of an answered question, tokens of a stage 1 prompt on the embedded model."""
    pairs = [(example.question, document) for example in examples for document in example.documents]
    prompts = [stage1_prompt(question, document, 140) for question, document in pairs]
    lengths = prompt_lengths(prompts, [(document,) for _, document in pairs], AutoProcessor.from_pretrained(TINY))
    return {
        "documents per question": len(pairs) / len(examples),
        "tokens per document": sum(lengths) / len(lengths),
        "bytes per question": size / len(examples),
    }


def indexing(files: int, folder: Path) -> dict[str, dict]:
    """Seconds and documents per second of the plain reader and of Ray."""
    notes = folder / "notes"
    notes.mkdir()
    for number in range(files):
        text = f"Pump {number} of hall {number % 17} needs {number % 9} bar. " * 12
        (notes / f"note{number}.md").write_text(f"# Pump {number}\n\n{text}\n\n# Valve {number}\n\n{text}")

    def index(name: str, **reader: Callable) -> dict[str, float]:
        begun = time.perf_counter()
        report = Library.open(folder / name, create=True).index(notes, ocr=False, **reader)
        seconds = time.perf_counter() - begun
        assert report.documents == 2 * files
        return {"seconds": seconds, "per_second": report.documents / seconds}

    found = {"plain": index("plain")}
    for workers in WORKERS:
        read = partial(read_on_ray, root=notes, embedding="none", workers=workers)
        found[f"ray, {workers}"] = index(f"ray-{workers}", read=read)
    size = sum(path.stat().st_size for path in (folder / "plain").rglob("*") if path.is_file())
    rows = Library.open(folder / "plain")._table.to_arrow()
    begun = time.perf_counter()
    Library.open(folder / "written", create=True).write(rows.to_pylist())
    unit = {
        "bytes per document": size / (2 * files),
        "seconds per written document": (time.perf_counter() - begun) / (2 * files),
        # the plain reader keeps up to four cores busy
        "core seconds per document": found["plain"]["seconds"] * min(4, os.cpu_count() or 1) / (2 * files),
    }
    return found | {"unit": unit}


def model(documents: float, answers: dict, index: dict) -> dict[str, float]:
    """What so many documents take, see the module's docstring."""
    a = ASSUMED
    speed = a["share of the peak in prefill"] * a["peak of a card, operations per second"]
    work = a["operations per parameter and token"] * a["parameters"] / speed  # seconds of a card per prefilled token
    questions = documents / a["documents per question"]
    tokens = documents * a["tokens per document"]
    length = a["stage 2: prompt tokens per question"] + a["stage 2: completion tokens per question"] / 2
    at_once = a["completions decoded at once"]
    moved = a["bytes of the weights"] + at_once * length * a["bytes of a cached token"]
    bandwidth = a["bytes per second of a card's memory"] * a["share of that in decoding"]
    decoding = a["stage 2: completion tokens per question"] * moved / bandwidth / at_once
    stage2 = questions * (a["stage 2: prompt tokens per question"] * work + decoding)
    card_hours = (tokens * work + stage2) / 3600
    core_hours = documents * index["unit"]["core seconds per document"] / 3600
    writing = documents * index["unit"]["seconds per written document"] / 3600
    return {
        "documents": documents,
        "questions": questions,
        "stage 1 tokens": tokens,
        "bytes of predictions": questions * answers["unit"]["bytes per question"],
        "bytes of the library": documents * index["unit"]["bytes per document"],
        "card hours, stage 1": tokens * work / 3600,
        "card hours, stage 2": stage2 / 3600,
        "hours to answer": card_hours / a["cards"],
        "core hours to index": core_hours,
        # one driver writes
        "hours to index": max(core_hours / a["cores that index"], writing),
        "hours of writing alone": writing,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=48)
    parser.add_argument("--files", type=int, default=1200)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        begun = time.perf_counter()
        with connected():
            start = time.perf_counter() - begun
            answers = answering(options.questions, Path(scratch))
            index = indexing(options.files, Path(scratch))
    result = {
        "machine": {
            "cores": os.cpu_count(), "processor": platform.machine(), "load": os.getloadavg()[1],
            "note": "cores shared with other work: rates within a run compare roughly",
        },
        "questions": options.questions, "files": options.files, "seconds to start ray": start,
        "answering": answers, "indexing": index, "assumed": ASSUMED,
        "model": {f"{documents:.0e}": model(documents, answers, index) for documents in (1e6, 1e9)},
    }  # fmt: skip
    OUT.write_text(json.dumps(result, indent=2) + "\n")
    write_sections()


if __name__ == "__main__":
    main()
