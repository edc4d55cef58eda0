"""What benchmarks/pretrained.py compares: scores of several systems over one pool per question, and paired figures.

Figures are those of each question's own order (its AUC, too), so that scores need not compare across questions: those
of BM25 and fused ranks do not. They are kept per question in the result file, so that a later run can add seeds to it
and still compare them with systems that it has not scored itself.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from lite.files import write_text
from lite.metrics import bootstrap
from lite.metrics.ranking import Judged, ndcg_at, recall_at
from lite.runs import read_metrics
from lite.schema import Example

FIGURES = ("auc", "recall@5", "hit@1", "ndcg@5")
FUSED_K = 10  # of reciprocal ranks; 60, which is usual, is for lists of a thousand
LONGEST = 512  # tokens of a question and a document, for the cross-encoder

Rows = Sequence[Sequence[float]]  # of each question its FIGURES


def kept(path: Path, examples: Sequence[Example], scores_of: Callable[[Example], np.ndarray]) -> list[np.ndarray]:
    """Scores of each question's pool, one line of a file each: what a stopped run has scored is not scored again."""
    done = {row["id"]: row["scores"] for row in read_metrics(path)}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, "".join(json.dumps({"id": i, "scores": scores}) + "\n" for i, scores in done.items()))
    with path.open("a") as file:
        for example in examples:
            if example.id not in done:
                done[example.id] = [float(score) for score in scores_of(example)]
                file.write(json.dumps({"id": example.id, "scores": done[example.id]}) + "\n")
                file.flush()
    return [np.array(done[example.id]) for example in examples]


def figures(examples: Sequence[Example], scores: Sequence[np.ndarray]) -> list[list[float]]:
    """The FIGURES of each question, rounded to 4 digits."""
    found = []
    for example, of_pool in zip(examples, scores, strict=True):
        labels = np.array([document.id in example.relevant for document in example.documents])
        question = Judged(np.asarray(of_pool, float), labels)
        best = float(labels[question.order()[0]])
        values = (own_auc(question), recall_at(question, 5), best, ndcg_at(question, 5))
        found.append([round(value, 4) for value in values])
    return found


def own_auc(question: Judged) -> float:
    """How often a relevant document outscores an irrelevant one of the same pool; a tie is half."""
    above = question.scores[question.labels][:, None] - question.scores[~question.labels][None]
    return float(((above > 0) + (above == 0) / 2).mean())


def fused(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Reciprocal ranks of two systems, added up (Cormack et al., 2009). Equal scores share their mean rank."""
    return sum(1 / (FUSED_K + mean_ranks(scores)) for scores in (first, second))


def mean_ranks(scores: np.ndarray) -> np.ndarray:
    """1 for the best, equal scores sharing the mean of their places."""
    scores = np.asarray(scores, float)
    better = (scores[None] > scores[:, None]).sum(1)
    equal = (scores[None] == scores[:, None]).sum(1)
    return better + (equal + 1) / 2


def summary(rows: Rows, baseline: Rows | None = None) -> dict[str, dict[str, float]]:
    """Every figure's mean with its 95 % interval over questions, or that of the paired difference."""
    values = np.array(rows) - (0 if baseline is None else np.array(baseline))
    return {
        name: {key: round(value, 4) for key, value in bootstrap.mean(values[:, column]).items()}
        for column, name in enumerate(FIGURES)
    }


def compared(per_question: Mapping[str, Rows]) -> dict[str, dict]:
    """Means of every system and the paired differences that are asked for, from per-question figures alone.

    Args:
        per_question: `bm25`, `base`, perhaps `cross-encoder`, and of each seed `seed N` and `seed N + bm25`.
    """
    differences = {}
    for name, rows in per_question.items():
        if not name.startswith("seed "):
            continue
        against = ("bm25",) if name.endswith("+ bm25") else ("base", "bm25")
        differences |= {f"{name} - {other}": summary(rows, per_question[other]) for other in against}
    return {"systems": {name: summary(rows) for name, rows in per_question.items()}, "differences": differences}


def cross_encoder(folder: Path) -> Callable[[Example], np.ndarray]:
    """Scores of a pool by an ONNX cross-encoder.

    Args:
        folder: With `model.onnx` and `tokenizer.json`.
    """
    import onnxruntime
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(LONGEST)
    tokenizer.enable_padding()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"])
    wanted = {entry.name for entry in session.get_inputs()}

    def scores_of(example: Example) -> np.ndarray:
        pairs = [(example.question, f"{document.title} {document.text}".strip()) for document in example.documents]
        encoded = tokenizer.encode_batch(pairs)
        fields = {
            "input_ids": [e.ids for e in encoded],
            "attention_mask": [e.attention_mask for e in encoded],
            "token_type_ids": [e.type_ids for e in encoded],
        }
        given = {name: np.array(value, dtype=np.int64) for name, value in fields.items() if name in wanted}
        return session.run(None, given)[0].reshape(len(pairs), -1)[:, 0]

    return scores_of
