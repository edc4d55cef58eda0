"""How well scores separate and order the documents of each question, with bootstrap intervals.

A run is a list of questions; a question is its scores `[n]` and its labels `[n]` (True = relevant). Questions are the
unit of resampling, since the documents of one question are not independent.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

RECALL_AT = (1, 3, 5, 10)
NDCG_AT = 5


@dataclass(frozen=True)
class Judged:
    """One question's scores and labels, both `[n]`."""

    scores: np.ndarray
    labels: np.ndarray

    def __post_init__(self) -> None:
        if self.labels.dtype != bool:
            raise ValueError(f"The labels are {self.labels.dtype}, not bool")
        if not np.isfinite(self.scores).all():
            raise ValueError("A score is not a finite number: the model or its precision is broken")
        if self.scores.shape != self.labels.shape or not self.labels.any():
            raise ValueError(
                f"{len(self.scores)} scores, {len(self.labels)} labels, {self.labels.sum()} of them relevant"
            )

    def order(self) -> np.ndarray:
        """Indices, best first. Documents with equal scores keep a fixed order that is unrelated to their labels."""
        tie_breaker = np.random.default_rng(0).permutation(len(self.scores))
        return np.lexsort((tie_breaker, -self.scores))


def recall_at(question: Judged, k: int) -> float:
    """The share of the relevant documents among the first `k`."""
    return float(question.labels[question.order()[:k]].sum() / question.labels.sum())


def ndcg_at(question: Judged, k: int) -> float:
    """nDCG of the order that the scores make, cut at `k`."""
    return ndcg(question.order().tolist(), set(np.flatnonzero(question.labels).tolist()), k)


def ndcg(order: Sequence, relevant: Collection, k: int | None = None) -> float:
    """nDCG of an order with binary gains (Järvelin and Kekäläinen, 2002), cut at `k` or not at all."""
    found = sum(1 / math.log2(place + 2) for place, item in enumerate(order[:k]) if item in relevant)
    reachable = len(relevant) if k is None else min(k, len(relevant))
    return found / sum(1 / math.log2(place + 2) for place in range(reachable))


def summarise(questions: Sequence[Judged], threshold: float = 0.5, resamples: int = 1000, seed: int = 0) -> dict:
    """Every figure as `{"value", "low", "high"}`, with 95 % percentile bootstrap intervals over questions."""
    return {
        name: {"value": float(draws[0]), **_interval(draws[1:])}
        for name, draws in _figures(questions, threshold, resamples, seed).items()
    }


def compare(
    questions: Sequence[Judged],
    baseline: Sequence[Judged],
    threshold: float = 0.5,
    resamples: int = 1000,
    seed: int = 0,
) -> dict:
    """Every figure of `questions` minus that of `baseline`, with paired intervals: both see the same resamples."""
    if len(questions) != len(baseline):
        raise ValueError(f"A paired comparison needs the same questions: {len(questions)} and {len(baseline)} given")
    if any(not np.array_equal(a.labels, b.labels) for a, b in zip(questions, baseline, strict=True)):
        raise ValueError("A paired comparison needs the same questions: their labels differ")
    ours, theirs = (_figures(run, threshold, resamples, seed) for run in (questions, baseline))
    differences = {name: ours[name] - theirs[name] for name in ours}
    return {name: {"value": float(draws[0]), **_interval(draws[1:])} for name, draws in differences.items()}


def chance(questions: Sequence[Judged]) -> dict:
    """What scores at random would reach, in expectation; for the accuracy, always saying the more frequent label."""
    share = np.array([question.labels.mean() for question in questions])
    sizes = np.array([len(question.labels) for question in questions])
    discounts = 1 / np.log2(np.arange(2, NDCG_AT + 2))
    ideal = np.array([discounts[: min(NDCG_AT, int(question.labels.sum()))].sum() for question in questions])
    reachable = np.array([discounts[:size].sum() for size in sizes])
    expected = {
        "auc": 0.5,
        "accuracy": float(max(share.mean(), 1 - share.mean())),
        **{f"recall@{k}": float(np.mean(np.minimum(k, sizes) / sizes)) for k in RECALL_AT},
        f"ndcg@{NDCG_AT}": float(np.mean(share * reachable / ideal)),
    }
    return {name: {"value": value} for name, value in expected.items()}


def filter_quality(questions: Sequence[Judged], threshold: float, max_kept: int) -> dict[str, float]:
    """What the filter does at a threshold: the recall that is kept and the share of documents that it removes."""
    kept = [keep(question.scores, threshold, max_kept) for question in questions]
    recalls = [q.labels[indices].sum() / q.labels.sum() for q, indices in zip(questions, kept, strict=True)]
    total = sum(len(question.labels) for question in questions)
    return {
        "recall_kept": float(np.mean(recalls)),
        "share_filtered": 1 - sum(map(len, kept)) / total,
    }


def keep(scores: np.ndarray, threshold: float, max_kept: int) -> np.ndarray:
    """Indices that stage 1 passes on, best first: score at or above `threshold`, at most `max_kept`, perhaps none."""
    order = np.argsort(-scores, kind="stable")
    return order[: min(int((scores >= threshold).sum()), max_kept)]


def tune_filter(questions: Sequence[Judged], min_recall: float = 0.98) -> dict[str, float]:
    """The `threshold` and `max_kept` that remove the most documents while the mean recall stays at `min_recall`.

    Every cap is tried; for each, the highest threshold that still reaches the recall.
    """
    candidates = np.unique(np.concatenate([question.scores[question.labels] for question in questions]))
    best = {"threshold": 0.0, "max_kept": max(len(question.scores) for question in questions), "share_filtered": 0.0}
    for max_kept in range(1, int(best["max_kept"]) + 1):
        low, high = 0, len(candidates)  # recall falls as the threshold rises: bisect
        while low < high:
            middle = (low + high) // 2
            recall = filter_quality(questions, candidates[middle], max_kept)["recall_kept"]
            low, high = (middle + 1, high) if recall >= min_recall else (low, middle)
        if low == 0:
            continue
        found = filter_quality(questions, candidates[low - 1], max_kept)
        if found["share_filtered"] > best["share_filtered"]:
            best = {"threshold": float(candidates[low - 1]), "max_kept": max_kept, **found}
    return best | filter_quality(questions, best["threshold"], int(best["max_kept"]))


def fixed_filter(questions: Sequence[Judged], max_kept: int = 8) -> dict[str, float]:
    """What `tune_filter` returns, without tuning: no threshold, the best `max_kept` documents of each question."""
    return {"threshold": 0.0, "max_kept": max_kept} | filter_quality(questions, 0.0, max_kept)


def _figures(questions: Sequence[Judged], threshold: float, resamples: int, seed: int) -> dict[str, np.ndarray]:
    """Each figure on the questions themselves (first entry) and on every resample: `[1 + resamples]`."""
    n = len(questions)
    if not n:
        raise ValueError("There is no question to measure")
    counts = np.vstack([np.ones(n), np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=resamples)])
    per_question = {
        "accuracy": [np.mean((question.scores >= threshold) == question.labels) for question in questions],
        **{f"recall@{k}": [recall_at(question, k) for question in questions] for k in RECALL_AT},
        f"ndcg@{NDCG_AT}": [ndcg_at(question, NDCG_AT) for question in questions],
    }
    means = {name: counts @ np.array(values) / n for name, values in per_question.items()}
    return {"auc": _auc(questions, counts), **means}


def _auc(questions: Sequence[Judged], counts: np.ndarray) -> np.ndarray:
    """Pooled area under the ROC curve for every row of `counts` `[B, Q]` (how often each question was drawn).

    Written as the Mann-Whitney statistic: `wins[a, b]` is how often a relevant document of question a outscores an
    irrelevant one of question b. A resample then costs two matrix products instead of a sort.
    """
    n = len(questions)
    positives = np.array([question.labels.sum() for question in questions])
    negatives = np.array([(~question.labels).sum() for question in questions])
    if not negatives.any():
        return np.full(len(counts), np.nan)
    positive_scores = np.concatenate([q.scores[q.labels] for q in questions])
    owner = np.repeat(np.arange(n), positives)
    wins = np.zeros((n, n))
    for b, question in enumerate(questions):
        others = np.sort(question.scores[~question.labels])
        below = np.searchsorted(others, positive_scores, side="left")
        ties = np.searchsorted(others, positive_scores, side="right") - below
        wins[:, b] = np.bincount(owner, weights=below + ties / 2, minlength=n)
    return ((counts @ wins) * counts).sum(1) / ((counts @ positives) * (counts @ negatives))


def _interval(draws: np.ndarray) -> dict[str, float]:
    low, high = np.nanpercentile(draws, [2.5, 97.5])
    return {"low": float(low), "high": float(high)}


def set_f1(chosen: Sequence[int], relevant: Sequence[int]) -> float:
    """F1 of a set of documents against the relevant ones."""
    shared = len(set(chosen) & set(relevant))
    return 2 * shared / (len(chosen) + len(relevant))
