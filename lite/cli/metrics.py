"""`lite metrics`: the official figures of a submission file."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from lite.console import Console
from lite.data.lines import read_lines
from lite.data.problems import Problems
from lite.data.webqa import keywords_of, records, unquoted
from lite.files import read_json
from lite.metrics import multimodalqa, webqa
from lite.metrics.fluency import MODEL, load_bartscore, qa_fluency
from lite.schema import LiteError
from lite.terminal import ArgumentParser

logger = logging.getLogger(__name__)

NAMED = 20  # malformed predictions that an error lists


def metrics(arguments: Sequence[str]) -> int:
    """`lite metrics …`. Returns the exit status."""
    parser = ArgumentParser(prog="lite metrics", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="BENCHMARK")
    for name, function, gold in (
        ("webqa", _webqa, "WebQA_train_val.json, or lines of its records (.jsonl, .jsonl.gz)"),
        ("multimodalqa", _multimodalqa, "MMQA_dev.jsonl.gz or MMQA_train.jsonl.gz"),
    ):
        command = commands.add_parser(name, help=f"the official figures of {name}")
        command.set_defaults(function=function)
        command.add_argument("--gold", type=Path, required=True, metavar="FILE", help=gold)
        command.add_argument("--predictions", type=Path, required=True, metavar="FILE", help="the submission, JSON")
        command.add_argument("--json", action="store_true", help="print only JSON; all figures are fractions of 1")
        command.add_argument("--skip_broken", action="store_true", help="malformed predictions count 0")
        if name == "webqa":
            command.add_argument("--split", choices=("train", "val"), help="of the gold file [val where it has any]")
            command.add_argument(
                "--lemmatizer", choices=(webqa.MODEL, "lookup"), help=f"[{webqa.MODEL} where it is installed]"
            )
            command.add_argument("--fluency_model", default=MODEL, help=f"for QA-FL; `none` leaves it out [{MODEL}]")
            command.add_argument("--fluency_weights", type=Path, help="BARTScore's bart.pth, as the leaderboard has it")
    parsed = parser.parse_args(arguments)
    report = parsed.function(parsed)
    if parsed.json:
        print(json.dumps(report, indent=2))
    else:
        _print_table(report)
    return 0


def _webqa(arguments: argparse.Namespace) -> dict[str, Any]:
    questions = read_webqa_gold(arguments.gold, arguments.split)
    predictions = _read_predictions(arguments.predictions, webqa_prediction, arguments.skip_broken)
    lemmatize, lemmatizer = webqa.load_lemmatizer(arguments.lemmatizer)
    bartscore = None
    if arguments.fluency_model != "none":
        bartscore = load_bartscore(arguments.fluency_model, arguments.fluency_weights)
    scores = webqa.score(questions, predictions, lemmatize, bartscore and partial(qa_fluency, bartscore=bartscore))
    weights = f" with {arguments.fluency_weights}" if arguments.fluency_weights else ""
    return {
        "benchmark": "webqa",
        **summary(scores, {question.id: question.category for question in questions}, predictions),
        "lemmatizer": lemmatizer,
        "fluency_model": arguments.fluency_model + weights if bartscore else None,
    }


def _multimodalqa(arguments: argparse.Namespace) -> dict[str, Any]:
    questions = read_multimodalqa_gold(arguments.gold)
    predictions = _read_predictions(arguments.predictions, multimodalqa_prediction, arguments.skip_broken)
    scores = multimodalqa.score(questions, predictions)
    return {
        "benchmark": "multimodalqa",
        **summary(scores, {question.id: question.type for question in questions}, predictions),
        "by_modality": _by_group(scores, {question.id: question.modality for question in questions}),
    }


def summary(
    scores: Mapping[str, Mapping[str, float | None]], categories: Mapping[str, str], predictions: Mapping[str, Any]
) -> dict[str, Any]:
    """Means over all questions and by category; how many were not answered, and how many answers nobody asked for."""
    return {
        "questions": len(scores),
        "missing": len(scores.keys() - predictions.keys()),
        "unknown": len(predictions.keys() - scores.keys()),
        **_means(list(scores.values())),
        "by_category": _by_group(scores, categories),
    }


def _by_group(scores: Mapping[str, Mapping[str, float | None]], groups: Mapping[str, str]) -> dict[str, dict]:
    members: dict[str, list] = {}
    for question, group in groups.items():
        members.setdefault(group, []).append(scores[question])
    return {group: {"questions": len(part), **_means(part)} for group, part in sorted(members.items())}


def _means(scores: Sequence[Mapping[str, float | None]]) -> dict[str, float | None]:
    """None where a figure is not available for every question."""
    columns = {name: [score[name] for score in scores] for name in scores[0]}
    return {name: None if None in values else float(np.mean(values)) for name, values in columns.items()}


def read_webqa_gold(path: Path, split: str | None = None) -> list[webqa.Question]:
    """The labelled questions of `WebQA_train_val.json` (its val split, where it has one), or of a file with one of its
    records per line."""
    problems = Problems()
    if path.suffix == ".json":
        rows = ((f"Guid {guid}", {"Guid": guid, **record}) for guid, record in records(path, problems))
    else:
        rows = ((f"line {line}", row) for line, row in read_lines(path, problems))
    # one pass, and no record is kept: WebQA's file would take gigabytes
    found: dict[object, list[webqa.Question | LiteError]] = {}
    for where, row in rows:
        found.setdefault(row.get("split"), []).append(_webqa_question(row, f"{path}, {where}"))
    wanted = split or ("val" if "val" in found else None)
    questions = [question for name, part in found.items() if wanted in (None, name) for question in part]
    if not questions:
        raise LiteError(f"{path} holds no labelled question" + (f" of the split {wanted}." if wanted else "."))
    for question in questions:
        if isinstance(question, LiteError):
            raise question
    return questions


def _webqa_question(row: dict[str, Any], where: str) -> webqa.Question | LiteError:
    """The error is returned, since the question may be of a split that nobody asked for."""
    try:
        answers = tuple(unquoted(str(answer)) for answer in row["A"])
        if not any(answers):
            raise ValueError("A is empty")
        sources = [fact["image_id"] for fact in row.get("img_posFacts") or []]
        sources += [fact["snippet_id"] for fact in row.get("txt_posFacts") or []]
        known = "img_posFacts" in row or "txt_posFacts" in row
        identifiers = frozenset(map(source_id, sources)) if known else None
        return webqa.Question(row["Guid"], row.get("Qcate", ""), answers, keywords_of(row, answers), identifiers)
    except (KeyError, TypeError, ValueError) as error:
        return LiteError(
            f"{where}: not a labelled WebQA question ({error!r}). The test split's answers are secret: send its "
            "submission to the leaderboard."
        )


def read_multimodalqa_gold(path: Path) -> list[multimodalqa.Question]:
    """The questions of `MMQA_dev.jsonl.gz` or `MMQA_train.jsonl.gz`; numbers become strings, as officially."""
    questions = []
    for line, row in read_lines(path, Problems()):
        try:
            answers = tuple(str(answer["answer"]) for answer in row["answers"])
            modality = "+".join(sorted({answer["modality"] for answer in row["answers"]}))
            if answers:  # the official evaluator leaves the others out
                questions.append(multimodalqa.Question(row["qid"], answers, row["metadata"].get("type", ""), modality))
        except (KeyError, TypeError, AttributeError) as error:
            raise LiteError(
                f"{path}, line {line}: not a labelled MultimodalQA question ({error!r}). The test split's answers are "
                "secret: send its submission to the leaderboard."
            ) from error
    if not questions:
        raise LiteError(f"{path} holds no labelled question.")
    return questions


def source_id(value: object) -> str:
    """Image ids are numbers in some files and zero-padded text in others."""
    text = str(value)
    return str(int(text)) if text.isdigit() else text


def webqa_prediction(value: object) -> webqa.Prediction:
    """A submission's `{"sources": [...], "answer": text or [text]}`. Raises ValueError with the reason."""
    if not isinstance(value, dict) or "answer" not in value:
        raise ValueError('not {"sources": [...], "answer": ...}')
    answer, sources = value["answer"], value.get("sources", [])
    if isinstance(answer, list) and answer:  # the official README has a list, the official server takes the text
        answer = answer[0]
    if not isinstance(answer, str):
        raise ValueError("the answer is no text")
    if not isinstance(sources, list) or not all(isinstance(i, str | int) for i in sources):
        raise ValueError("the sources are no list of ids")
    return webqa.Prediction(answer, frozenset(map(source_id, sources)))


def multimodalqa_prediction(value: object) -> str | list[str]:
    """A submission's list of answers, or one answer. Raises ValueError with the reason."""
    if isinstance(value, str) or (isinstance(value, list) and all(isinstance(answer, str) for answer in value)):
        return value
    raise ValueError("not a list of texts")


def _read_predictions(path: Path, parse: Callable[[object], Any], skip_broken: bool) -> dict[str, Any]:
    rows = read_json(path)
    if not isinstance(rows, dict):
        raise LiteError(f"{path} must hold one JSON object: question ids to predictions.")
    predictions, malformed = {}, []
    for question, value in rows.items():
        try:
            predictions[question] = parse(value)
        except ValueError as error:
            malformed.append(f"  {question}: {error}")
    if malformed:
        listed = "\n".join(malformed[:NAMED] + ([f"  … and {len(malformed) - NAMED} more"] * (len(malformed) > NAMED)))
        message = f"{path}: {len(malformed)} predictions are malformed:\n{listed}"
        if not skip_broken:
            raise LiteError(f"{message}\nMend them, or let them count 0 with --skip_broken.")
        logger.warning("%s\nThey count 0.", message)
    return predictions


def _print_table(report: dict[str, Any]) -> None:
    figures = [name for name, value in report.items() if isinstance(value, float) or value is None]
    figures = [name for name in figures if name != "fluency_model"]
    console = Console(width=None if sys.stdout.isatty() else 120)
    table = Table(title=report["benchmark"])
    table.add_column("")
    for name in ("questions", *figures):
        table.add_column(name, justify="right")

    def row(name: str, part: dict[str, Any]) -> None:
        cells = ["unavailable" if part[figure] is None else f"{part[figure]:.4f}" for figure in figures]
        table.add_row(name or "–", str(part["questions"]), *cells)

    row("all", report)
    for group in ("by_category", "by_modality"):
        table.add_section()
        for name, part in report.get(group, {}).items():
            row(name, part)
    console.print(table)
    notes = [f"{report['missing']} questions have no prediction and count 0." if report["missing"] else ""]
    notes.append(f"{report['unknown']} predictions are for no question of the gold file." if report["unknown"] else "")
    if report["benchmark"] == "webqa":
        notes.append(f"Lemmatiser: {report['lemmatizer']}. Fluency model: {report['fluency_model'] or 'none'}.")
    for note in filter(None, notes):
        console.print(note, highlight=False)
