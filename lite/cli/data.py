"""`lite data`: look at a data set, check it, cut a small WebQA out of the large one."""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.progress import track
from rich.table import Table

from lite.console import Console
from lite.data import webqa
from lite.data.images import LazyImage
from lite.data.problems import Problems
from lite.data.sizes import cautions
from lite.data.sources import KNOWN, SPLITS, is_readable, load_examples, parse_spec
from lite.schema import Document, Example, LiteError
from lite.stages.prompts import clip
from lite.terminal import ArgumentParser

CHARS_PER_TOKEN = 4
PIXELS_PER_TOKEN, MAX_PIXELS = 32 * 32, 512 * 512  # of Qwen3-VL; the recipes' cap
SIZED_IMAGES = 500  # images whose size is looked up for the prompt lengths


def data(arguments: Sequence[str]) -> int:
    """`lite data …`. Returns the exit status."""
    parser = ArgumentParser(prog="lite data", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, function, text in (
        ("inspect", inspect, "counts, modalities, candidates, prompt lengths, what is broken, and sample questions"),
        ("validate", validate, "open everything; list what is wrong and exit with 1 if anything is"),
    ):
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(function=function)
        command.add_argument("spec", metavar="SPEC", help=KNOWN)
        command.add_argument("--split", help="train, dev or test; without it all that there are")
        command.add_argument("--limit", type=int, help="only the first N questions of each split")
        if name == "inspect":
            command.add_argument("--samples", type=int, default=3, help="questions to show [3]")
            command.add_argument("--document_chars", type=int, default=2000, help="as in the training [2000]")
    command = commands.add_parser("subset", help="a WebQA of few questions, in the official layout")
    command.set_defaults(function=subset)
    command.add_argument("spec", metavar="webqa:DIR")
    command.add_argument("--questions", type=int, required=True, metavar="N", help="labelled questions to keep")
    command.add_argument("--out", type=Path, required=True, metavar="DIR", help="an empty or new folder")
    command.add_argument("--seed", type=int, default=0, help="decides which questions are drawn [0]")
    command.add_argument("--skip_broken", action="store_true", help="leave out what is broken, with a count")
    parsed = parser.parse_args(arguments)
    return parsed.function(parsed)


def _console() -> Console:
    """As wide as the terminal; where there is none, wide enough for three splits."""
    return Console(width=None if sys.stdout.isatty() else 160)


def inspect(arguments: argparse.Namespace) -> int:
    """Print what a data set holds. What is broken is counted, not fatal."""
    console = _console()
    problems = Problems(skip=True)
    splits = _load(arguments.spec, arguments.split, arguments.limit, problems)
    table = Table(title=arguments.spec)
    table.add_column("")
    rows: dict[str, list[str]] = {}
    for split, examples in splits.items():
        table.add_column(split, justify="right")
        for name, value in _figures(examples, arguments.document_chars).items():
            rows.setdefault(name, []).append(value)
    for name, cells in rows.items():
        table.add_row(name, *cells)
    console.print(table)
    console.print(
        f"Prompt lengths are of one question with one document, guessed at {CHARS_PER_TOKEN} characters a token and "
        f"one token per {PIXELS_PER_TOKEN} pixels, at most {MAX_PIXELS // PIXELS_PER_TOKEN} an image.",
        soft_wrap=True, highlight=False,
    )  # fmt: skip
    for name, count in problems.notes.items():
        console.print(f"Note: {count} × {name}.", highlight=False)
    _print_cautions(arguments, splits, console)
    _print_problems(problems, console)
    for example in next(iter(splits.values()))[: arguments.samples]:
        console.print(_sample(example), soft_wrap=True, markup=False, highlight=False)
    return 0


def _load(spec: str, split: str | None, limit: int | None, problems: Problems) -> dict[str, list[Example]]:
    """Every split that the data set has. A split without its file is passed over unless it was asked for."""
    if split is not None:
        return {split: load_examples(spec, split, limit, problems)}
    name, path = parse_spec(spec)
    splits = {}
    for candidate in SPLITS:
        if name == "webqa" and not (path / webqa.FILES[candidate]).exists():
            continue
        if name == "multimodalqa" and not list(path.glob(f"**/MMQA_{candidate}.jsonl*")):
            continue
        before = len(problems.messages)
        examples = load_examples(spec, candidate, limit, problems)
        if examples or len(problems.messages) > before:
            splits[candidate] = examples
    if not any(splits.values()) and not problems.messages:
        raise LiteError(f"{spec} holds no question. docs/data.md says which files belong there.")
    return splits


def _figures(examples: Sequence[Example], document_chars: int) -> dict[str, str]:
    documents = {document.id: document for example in examples for document in example.documents}
    kinds = Counter(document.kind for document in documents.values())
    gold = Counter(
        " + ".join(sorted({d.kind for d in example.documents if d.id in example.relevant})) or "not labelled"
        for example in examples
    )
    categories = Counter(example.category or "–" for example in examples)
    lengths = _prompt_tokens(examples, documents, document_chars)
    return {
        "questions": f"{len(examples):,}",
        "with answers": f"{sum(bool(example.answers) for example in examples):,}",
        "distinct documents": f"{len(documents):,}",
        "… by kind": _counts(kinds),
        "relevant documents' kinds": _counts(gold),
        "question types": _counts(categories),
        "candidates per question": _percentiles([len(example.documents) for example in examples]),
        "relevant per question": _percentiles([len(example.relevant) for example in examples]),
        "prompt tokens": _percentiles(lengths),
    }


def _counts(counter: Counter[str]) -> str:
    return "\n".join(f"{name} {count:,}" for name, count in counter.most_common(8)) or "–"


def _percentiles(values: Sequence[float]) -> str:
    if not len(values):
        return "–"
    p5, p50, p95, top = np.percentile(values, [5, 50, 95, 100])
    return f"p5 {p5:.0f}, p50 {p50:.0f}, p95 {p95:.0f}, max {top:.0f}"


def _prompt_tokens(examples: Sequence[Example], documents: dict[str, Document], document_chars: int) -> np.ndarray:
    """A guess for each (question, document): the tokenizer and the images of a whole benchmark would take hours."""
    pictured = [document for document in documents.values() if document.image is not None]
    drawn = random.Random(0).sample(pictured, min(SIZED_IMAGES, len(pictured)))
    sizes = [tokens for document in drawn if (tokens := _image_tokens(document)) is not None]
    typical = float(np.median(sizes)) if sizes else 0.0
    length = {
        i: len(document.title) + min(len(document.text), document_chars) + 70 for i, document in documents.items()
    }
    image = {i: typical if document.image is not None else 0.0 for i, document in documents.items()}
    return np.array(
        [(len(e.question) + length[d.id]) / CHARS_PER_TOKEN + image[d.id] for e in examples for d in e.documents]
    )


def _image_tokens(document: Document) -> float | None:
    try:
        width, height = document.image.size() if isinstance(document.image, LazyImage) else document.load_image().size
    except (LiteError, OSError):
        return None  # `validate` names it
    return min(width * height, MAX_PIXELS) / PIXELS_PER_TOKEN


def _sample(example: Example) -> str:
    lines = [f"\n{example.question}", f"  id {example.id}, type {example.category or '–'}"]
    if example.answers:
        lines.append(f"  answer: {'; '.join(example.answers)}")
    shown = sorted(example.documents, key=lambda document: document.id not in example.relevant)[:4]
    for document in shown:
        mark = "+" if document.id in example.relevant else "-"
        text = clip(" ".join(document.text.split()), 100)
        lines.append(f"  {mark} [{document.kind}] {document.title}" + (f": {text}" if text else ""))
    rest = len(example.documents) - len(shown)
    return "\n".join(lines + ([f"  … and {rest} more candidates"] if rest else []))


def _print_cautions(arguments: argparse.Namespace, splits: dict[str, list[Example]], console: Console) -> None:
    if parse_spec(arguments.spec)[0] == "jsonl" and arguments.split is None:
        for line in cautions(*(splits.get(split, []) for split in SPLITS)):
            console.print(f"Note: {line}", soft_wrap=True, highlight=False)


def _print_problems(problems: Problems, console: Console) -> None:
    if not problems.messages:
        console.print("Nothing is broken.")
        return
    console.print(f"Broken: {', '.join(f'{count} × {kind}' for kind, count in problems.counts.most_common())}.")
    for line in problems.listed():
        console.print(f"  {line}", soft_wrap=True, highlight=False)


def validate(arguments: argparse.Namespace) -> int:
    """Load every question and decode every image. Returns 1 when anything is wrong."""
    console = _console()
    problems = Problems(skip=True)
    splits = _load(arguments.spec, arguments.split, arguments.limit, problems)
    documents = {d.id: d for examples in splits.values() for e in examples for d in e.documents if d.image is not None}
    for document in track(documents.values(), "opening images", console=console, transient=True):
        is_readable(document, problems)
    counts = ", ".join(f"{split} {len(examples):,}" for split, examples in splits.items())
    console.print(f"Questions: {counts}; images opened: {len(documents):,}.", highlight=False)
    _print_cautions(arguments, splits, console)
    _print_problems(problems, console)
    return 1 if problems.messages else 0


def subset(arguments: argparse.Namespace) -> int:
    """Write a WebQA of `--questions` labelled questions, train and val in their proportion, with their images only."""
    console = _console()
    name, folder = parse_spec(arguments.spec)
    if name != "webqa":
        raise LiteError(f"lite data subset cuts webqa:DIR alone, not {arguments.spec!r}.")
    out: Path = arguments.out
    if out.exists() and any(out.iterdir()):
        raise LiteError(f"{out} is not empty. Give another --out.")
    if arguments.questions < 1:
        raise LiteError(f"--questions is {arguments.questions}; it must be at least 1.")
    problems = Problems(arguments.skip_broken)
    source = folder / webqa.FILES["train"]
    guids = [guid for guid, record in webqa.records(source, problems) if record.get("split") in ("train", "val")]
    if arguments.questions > len(guids):
        raise LiteError(f"{source} holds {len(guids)} labelled questions; --questions asks for {arguments.questions}.")
    chosen = set(random.Random(arguments.seed).sample(guids, arguments.questions))
    archive = webqa.open_archive(folder)
    out.mkdir(parents=True, exist_ok=True)
    images: set[int] = set()
    splits: Counter[str] = Counter()
    with open(out / source.name, "w", encoding="utf-8") as file:
        for guid, record in webqa.records(source, Problems(skip=True)):
            if guid in chosen:
                file.write(("{" if not splits else ",\n") + f"{json.dumps(guid)}: {json.dumps(record)}")
                splits[record["split"]] += 1
                for facts in ("img_posFacts", "img_negFacts"):
                    images.update(int(fact["image_id"]) for fact in record.get(facts) or [])
        file.write("}\n")
    copied = _copy_images(archive, sorted(images), out, problems)
    megabytes = sum(path.stat().st_size for path in out.iterdir()) / 1e6
    console.print(
        f"{out}: {splits['train']} train and {splits['val']} val questions, {copied} images, {megabytes:,.0f} MB. "
        f"Use it as webqa:{out}",
        soft_wrap=True, highlight=False,
    )  # fmt: skip
    if problems.messages:
        _print_problems(problems, console)
    return 0


def _copy_images(archive: webqa.Archive, images: Sequence[int], out: Path, problems: Problems) -> int:
    """Their lines of `imgs.tsv`, and a `lineidx` of as many lines as before: -1 stands for an image left out."""
    offsets = np.full(len(archive.offsets), -1, dtype=np.int64)
    position = copied = 0
    with open(out / "imgs.tsv", "wb") as file:
        for image in track(images, "copying images", console=Console(stderr=True), transient=True):
            try:
                row = archive.row(image) + b"\n"
            except LiteError as error:
                problems.add("missing image", str(error))
                continue
            offsets[image % webqa.LINES] = position
            position += file.write(row)
            copied += 1
    (out / "imgs.lineidx").write_text("".join(f"{offset}\n" for offset in offsets.tolist()))
    return copied
