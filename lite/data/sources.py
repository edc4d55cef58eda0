"""Data sets by name: `flags`, `webqa:DIR`, `multimodalqa:DIR`, `jsonl:FILE` or the file; mixes, with commas between."""

from __future__ import annotations

import gc
import os
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path

from lite.data import flags, jsonl, multimodalqa, webqa
from lite.data.pools import Corpus, Pair, training_pairs
from lite.data.problems import Problems
from lite.data.sizes import cautions
from lite.schema import Document, Example, LiteError

LOADERS = {
    "webqa": webqa.load_examples,
    "multimodalqa": multimodalqa.load_examples,
    "jsonl": jsonl.load_examples,
}
SPLITS = ("train", "dev", "test")
ALIASES = {"val": "dev", "validation": "dev"}
KNOWN = "flags (bundled), webqa:DIR, multimodalqa:DIR, jsonl:FILE or the file alone"


def parse_spec(spec: str) -> tuple[str, Path | None]:
    """`webqa:DIR` to its name and its path.

    Raises:
        LiteError: There is no such data set, its path is missing or does not exist.
    """
    name, _, rest = _named(spec).partition(":")
    if name == "flags":
        if rest:
            raise LiteError(f"The data set flags is bundled and takes no path: write `flags`, not {spec!r}.")
        return name, None
    if name not in LOADERS:
        raise LiteError(f"Unknown data set {spec[:300]!r}. Available: {KNOWN}.{_guess(spec)}")
    path = Path(rest).expanduser()
    wanted = "FILE" if name == "jsonl" else "DIR"
    if not rest:
        raise LiteError(f"The data set {name} needs a path: {name}:{wanted}.")
    try:
        found = path.is_file() if name == "jsonl" else path.is_dir()
    except OSError:  # a name that is too long
        found = False
    if not found:
        raise LiteError(f"{spec}: {path} is no {'file' if name == 'jsonl' else 'folder'}.")
    return name, path


def _named(spec: str) -> str:
    """The name that a bare `own.jsonl` leaves out."""
    bare = spec.partition(":")[0] not in LOADERS and spec.endswith((".jsonl", ".jsonl.gz", ".parquet"))
    return f"jsonl:{spec}" if bare else spec


def _guess(spec: str) -> str:
    if os.path.isdir(spec):
        return f" Did you mean webqa:{spec} or multimodalqa:{spec}?"
    if os.path.isfile(spec):
        return f" If {spec} holds one JSON object per line, write jsonl:{spec}"
    near = get_close_matches(spec.partition(":")[0], ["flags", *LOADERS], 1)
    return f" Did you mean {near[0]}?" if near else ""


def split_mix(data: str) -> list[str]:
    """`webqa:DIR,flags` to its parts. A comma inside a path is no separator, unless a data set's name follows it, or a
    file's ending stands before it."""
    parts = re.split(r",(?=flags(?:,|$)|(?:" + "|".join(LOADERS) + r"):)|(?<=\.jsonl),|(?<=\.parquet),", data)
    return [_named(part) for part in parts]


def load_examples(spec: str, split: str, limit: int | None = None, problems: Problems | None = None) -> list[Example]:
    """The questions of a split, each with its pool of candidates. Images are not opened.

    Args:
        spec: `flags`, `webqa:DIR`, `multimodalqa:DIR` or `jsonl:FILE`; of a mix, ids and categories are told apart by
            a prefix.
        split: `train`, `dev` (or `val`) or `test`.
        limit: Only the first so many questions.
        problems: Collects what is broken; without it the first broken thing is an error.

    Raises:
        LiteError: An unknown name or split, a missing file, or something broken.
    """
    if len(specs := split_mix(spec)) > 1:
        parts = [load_examples(part, split, limit, problems) for part in specs]
        return [e for number, part in enumerate(parts) for e in _prefixed(part, _prefix(number, specs[number]))]
    name, path = parse_spec(spec)
    split = ALIASES.get(split, split)
    if split not in SPLITS:
        raise LiteError(f"Unknown split {split!r}. There are {', '.join(SPLITS)}.")
    if limit is not None and limit < 1:
        raise LiteError(f"The limit is {limit}; it must be at least 1.")
    if path is None:
        return flags.load_examples(split)[:limit]
    collecting = gc.isenabled()
    gc.disable()  # a million new documents and not one cycle: looking for some doubles the time
    try:
        return LOADERS[name](path, split, limit, problems or Problems())
    finally:
        if collecting:
            gc.enable()


def load_candidates(spec: str, split: str, examples: Sequence[Example]) -> list[Document]:
    """The documents that negatives for `examples` may come from: for `flags` see there, for the others their pools."""
    if spec == "flags":
        return flags.load_candidates(split)
    return list({document.id: document for example in examples for document in example.documents}.values())


def load_training_pairs(
    data: str,
    weights: Sequence[float] | None,
    limit: int | None,
    hard_share: float,
    seed: int,
    problems: Problems,
) -> list[Pair]:
    """Balanced training pairs of one data set, or of several mixed.

    The benchmarks' pools, and a user's own, hold negatives that somebody mined for the question: they are the hard
    ones. The pools of `flags` are random draws; there BM25 neighbours are. See `training_pairs`.

    Args:
        data: A data set or a mix, as for `load_examples`.
        weights: How the pairs divide among the data sets; the largest mix in which no pair comes twice. Without them
            all pairs of all sets are taken.
        limit: Of the questions of each set.
        hard_share, seed: See `training_pairs`.
        problems: As for `load_examples`.
    """
    specs = split_mix(data)
    if weights is not None and (len(weights) != len(specs) or min(weights) <= 0):
        raise LiteError(f"{len(specs)} data sets need as many weights, all above 0; data_weights is {list(weights)}.")
    parts = []
    for examples, documents, mined in load_training_sets(data, limit, problems):
        pairs = training_pairs(examples, Corpus(documents), hard_share, seed, mined)
        # a pool is not needed any more, and all of them together are most of the memory
        light = {example.id: replace(example, documents=()) for example in examples} if mined else {}
        parts.append([replace(pair, example=light.get(pair.example.id, pair.example)) for pair in pairs])
    if len(parts) == 1:
        return parts[0]
    if weights is not None:
        scale = min(len(part) / weight for part, weight in zip(parts, weights, strict=True))
        parts = [part[: round(scale * weight)] for part, weight in zip(parts, weights, strict=True)]
    mixed = [pair for part in parts for pair in part]
    random.Random(seed).shuffle(mixed)
    return mixed


def load_training_sets(
    data: str, limit: int | None, problems: Problems
) -> Iterator[tuple[list[Example], list[Document], bool]]:
    """Of every data set in `data`: its training questions, where negatives come from, and whether its pools are mined.

    Of a mix, ids are told apart by a prefix: two sets may both have a document `1`.
    """
    specs = split_mix(data)
    for number, spec in enumerate(specs):
        examples = load_examples(spec, "train", limit, problems)
        if not examples:
            raise LiteError(f"{spec} has no question to train on. Check its split and --limit.")
        documents = load_candidates(spec, "train", examples)
        if len(specs) > 1:
            prefix = _prefix(number, spec)
            examples = _prefixed(examples, prefix)
            documents = [_renamed(document, prefix) for document in documents]
        yield examples, documents, spec != "flags"


def is_readable(document: Document, problems: Problems) -> bool:
    """Whether the document's image, if it has one, can be decoded; what cannot be is reported."""
    if document.image is None:
        return True
    try:
        document.load_image()
    except LiteError as error:
        problems.add("broken image", str(error))
        return False
    return True


def without_unreadable(examples: Sequence[Example], problems: Problems) -> list[Example]:
    """The examples without images that cannot be decoded. A question that loses a relevant one is left out and counted:
    neither training nor a report can ask for what is missing."""
    readable: dict[str, bool] = {}
    left = []
    for example in examples:
        for document in example.documents:
            if document.id not in readable:
                readable[document.id] = is_readable(document, problems)
        lost = next((i for i in sorted(example.relevant) if not readable[i]), None)
        if lost is not None:
            problems.add("question that loses a relevant image", f"Question {example.id!r}: {lost} cannot be shown.")
            continue
        left.append(replace(example, documents=tuple(d for d in example.documents if readable[d.id])))
    return left


def own_cautions(data: str, limit: int | None, skip_broken: bool) -> list[str]:
    """Of each file of a user's own in `data`: what its questions are too few for, see `cautions`. To be told before
    hours of training, and not by the report.

    Raises:
        LiteError: There is no question to tune on, or none to report on.
    """
    lines = []
    for spec in split_mix(data):
        if spec.startswith("jsonl:"):
            train = load_examples(spec, "train", limit, Problems(skip_broken))
            lines += cautions(train, *_tune_and_test(spec, limit, Problems(skip_broken)))
    return lines


def load_report_examples(
    specs: Sequence[str], limit: int | None, problems: Problems
) -> tuple[list[Example], list[Example], list[Document]]:
    """What a report on a trained filter needs: questions to tune on, others to report on, and their documents.

    These are dev and test. Where test has no labels (both benchmarks keep theirs secret) dev is divided: its first,
    third, … question tune, the others are reported on.
    """
    specs = [part for spec in specs for part in split_mix(spec)]
    tune: list[Example] = []
    test: list[Example] = []
    corpus: dict[str, Document] = {}
    for number, spec in enumerate(specs):
        parts = _tune_and_test(spec, limit, problems)
        if problems.skip and spec != "flags":
            parts = tuple(without_unreadable(part, problems) for part in parts)
        documents = load_candidates(spec, "test", [*parts[0], *parts[1]])
        if len(specs) > 1:
            prefix = _prefix(number, spec)
            parts = tuple(_prefixed(part, prefix) for part in parts)
            documents = [_renamed(document, prefix) for document in documents]
        tune += parts[0]
        test += parts[1]
        corpus |= {document.id: document for document in documents}
    return tune, test, list(corpus.values())


def _tune_and_test(spec: str, limit: int | None, problems: Problems) -> tuple[list[Example], list[Example]]:
    if spec == "flags" or spec.startswith("jsonl:"):
        dev, test = (load_examples(spec, split, limit, problems) for split in ("dev", "test"))
    else:
        both = load_examples(spec, "dev", None if limit is None else 2 * limit, problems)
        dev, test = both[::2], both[1::2]
    if not dev or not test:
        raise LiteError(
            f"{spec}: the report needs labelled questions to tune the threshold and others to report on, and there are "
            f"{len(dev)} and {len(test)}. Label more questions of the splits dev and test, or raise --limit."
        )
    return dev, test


def _prefix(number: int, spec: str) -> str:
    return f"{number + 1}:{spec.partition(':')[0]}:"


def _renamed(document: Document, prefix: str) -> Document:
    return replace(document, id=prefix + document.id)


def _prefixed(examples: Sequence[Example], prefix: str) -> list[Example]:
    return [
        replace(
            example,
            id=prefix + example.id,
            documents=tuple(_renamed(document, prefix) for document in example.documents),
            relevant=frozenset(prefix + i for i in example.relevant),
            category=f"{prefix.split(':')[1]}: {example.category}",
        )
        for example in examples
    ]
