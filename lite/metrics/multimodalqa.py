"""MultimodalQA's official metrics, exact match and F1 between lists of answers.

The rules are those of `baselines/evaluate.py` in github.com/allenai/multimodalqa, which extend DROP's.
"""

from __future__ import annotations

import re
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment
from word2number import w2n

PUNCTUATION = str.maketrans("", "", string.punctuation)


@dataclass(frozen=True)
class Question:
    """What is known of a question: all of `answers` are wanted, in any order."""

    id: str
    answers: tuple[str, ...]
    type: str = ""
    modality: str = ""


def normalise(answer: str) -> str:
    """Split at spaces and hyphens; lower-case; drop punctuation and articles; numbers and number words as floats."""
    parts = (_normalise_token(token) for token in re.split(r"[ -]", answer))
    return " ".join(part for part in parts if part)


def _normalise_token(token: str) -> str:
    token = token.lower()
    if not is_number(token):
        token = token.translate(PUNCTUATION)
    return " ".join(re.sub(r"\b(?:a|an|the)\b", " ", _as_float(token)).split())


def _as_float(token: str) -> str:
    if is_number(token):
        return str(float(token))
    try:
        return str(float(w2n.word_to_num(token)))
    except (ValueError, IndexError):
        return token


def is_number(text: str) -> bool:
    """Whether Python reads it as a float: `1,234` is none, `inf` and `1_000` are."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def list_em(predicted: str | Sequence[str], gold: str | Sequence[str]) -> float:
    """1 where both lists hold the same normalised answers, and as many of them; else 0. A string is a list of one."""
    said, wanted = ([normalise(answer) for answer in _listed(answers)] for answers in (predicted, gold))
    return float(set(said) == set(wanted) and len(said) == len(wanted))


def list_f1(predicted: str | Sequence[str], gold: str | Sequence[str]) -> float:
    """Mean bag-of-words F1 under the best one-to-one alignment of the lists, rounded to two decimals.

    Answers that find no partner count 0. So does a pair whose gold answer has numbers of which the other has none.
    """
    said, wanted = ([set(normalise(answer).split()) for answer in _listed(answers)] for answers in (predicted, gold))
    if not said and not wanted:
        return 1.0
    scores = np.array([[_bag_f1(bag, gold_bag) for bag in said] for gold_bag in wanted]).reshape(len(wanted), len(said))
    aligned = scores[linear_sum_assignment(-scores)]
    return round(float(aligned.sum()) / max(len(said), len(wanted)), 2)


def answer_list(answer: str) -> list[str]:
    """The parts of an answer that a model wrote: `;` or a line break separates them."""
    return [part.strip() for part in re.split(r"[;\n]", answer) if part.strip()]


def _listed(answers: str | Sequence[str]) -> Sequence[str]:
    return [answers] if isinstance(answers, str) else answers


def _bag_f1(said: set[str], wanted: set[str]) -> float:
    numbers = {word for word in wanted if is_number(word)}
    if numbers and not numbers & said:
        return 0.0
    same = len(said & wanted)
    precision = same / len(said) if said else 1.0
    recall = same / len(wanted) if wanted else 1.0
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def score(questions: Sequence[Question], predictions: Mapping[str, str | Sequence[str]]) -> dict[str, dict[str, float]]:
    """Every question's `{"exact_match", "f1"}`, fractions of 1; an unanswered question scores 0."""
    scores = {}
    for question in questions:
        predicted = predictions.get(question.id)
        scores[question.id] = {
            "exact_match": 0.0 if predicted is None else list_em(predicted, question.answers),
            "f1": 0.0 if predicted is None else list_f1(predicted, question.answers),
        }
    return scores
