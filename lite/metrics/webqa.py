"""WebQA's official metrics: keyword accuracy (QA-Acc), fluency (QA-FL), their product (QA) and retrieval F1.

The rules and word sets are those of `eval.py` in github.com/WebQnA/WebQA (CC0), as revised in the `eval_1022.py` that
its `eval_webqa.md` names as the leaderboard's script. Retrieval F1 is defined by the leaderboard alone, whose code is
not public: the mean over questions of the F1 between two sets of source ids.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from word2number import w2n

from lite.schema import LiteError

COLORS = frozenset(
    "orangebrown spot yellow blue rainbow ivory brown gray teal bluewhite orangepurple black white gold redorange pink "
    "blonde tan turquoise grey beige golden orange bronze maroon purple bluere red rust violet transparent yes silver "
    "chrome green aqua".split()
)
SHAPES = frozenset(
    "globular octogon ring hoop octagon concave flat wavy shamrock cross cylinder cylindrical pentagon point pyramidal "
    "crescent rectangular hook tube cone bell spiral ball convex square arch h cuboid step rectangle dot oval circle "
    "star crosse crest octagonal cube triangle semicircle domeshape obelisk corkscrew curve circular xs slope pyramid "
    "round bow straight triangular heart fork teardrop fold curl spherical diamond keyhole conical dome sphere "
    "bellshaped rounded hexagon flower globe torus".split()
)
YES_NO = frozenset(["yes", "no"])
DOMAINS = {"color": COLORS, "shape": SHAPES, "YesNo": YES_NO}  # these and "number" are scored by F1, others by recall

PUNCTUATION = str.maketrans("", "", string.punctuation.replace(".", ""))
EPSILON = 1e-5  # in the official F1's denominator: even a perfect one is 0.999995
MODEL = "en_core_web_sm"


@dataclass(frozen=True)
class Question:
    """What is known of a question.

    Args:
        id: The `Guid`.
        category: `Qcate`: color, shape, YesNo, number, choose, Others or text.
        answers: `A`, whole sentences.
        keywords: `Keywords_A`; where it is hidden, the first answer stands in for it, as the organisers advise.
        sources: Ids of the gold sources, or None where the file does not name them.
    """

    id: str
    category: str
    answers: tuple[str, ...]
    keywords: str
    sources: frozenset[str] | None


@dataclass(frozen=True)
class Prediction:
    """A submission's entry for one question."""

    answer: str
    sources: frozenset[str] = frozenset()


@cache
def load_lemmatizer(name: str | None = None) -> tuple[Callable[[str], str], str]:
    """spaCy's English lemmatiser.

    Args:
        name: `en_core_web_sm`, which the leaderboard uses; `lookup`, the tables of `spacy-lookups-data`; None for the
            model where it is installed and the tables elsewhere. With the tables the two official baselines reach
            0.4445 and 0.4979; with the model, published, 0.4429 and 0.4961.

    Returns:
        (text to lemmas with one space between, what was loaded).

    Raises:
        LiteError: The model was asked for and is not installed.
    """
    import spacy  # seconds, and only this metric needs it

    if name is None:
        name = MODEL if spacy.util.is_package(MODEL) else "lookup"
    if name == "lookup":
        pipeline = spacy.blank("en")
        pipeline.add_pipe("lemmatizer", config={"mode": "lookup"})
        pipeline.initialize()
    elif spacy.util.is_package(name):
        pipeline = spacy.load(name, disable=["ner", "textcat", "parser"])
    else:
        raise LiteError(f"spaCy's model {name!r} is not installed: python -m spacy download {name}, or use `lookup`.")
    return lambda text: " ".join(token.lemma_ for token in pipeline(text)), name


def normalise(text: str, lemmatize: Callable[[str], str]) -> str:
    """Lower-case; drop punctuation except decimal points, and articles; number words to digits; lemmas.

    A single word keeps what looks like an article, and a single character is only lower-cased.
    """
    words = len(text.split())
    lowered = text.lower()
    if len(text.strip()) == 1:
        return _digits(lowered)
    bare = re.sub(r"\.(?!\d)", "", lowered.translate(PUNCTUATION))
    if words != 1:
        bare = re.sub(r"\b(?:a|an|the)\b", " ", bare)
    return lemmatize(_digits(bare))


def _digits(text: str) -> str:
    return " ".join(_digit(word) for word in text.split())


def _digit(word: str) -> str:
    if word == "point":  # word2number takes it for a decimal point
        return word
    try:
        return str(w2n.word_to_num(word))
    except (ValueError, IndexError):
        return word


def qa_accuracy(answer: str, keywords: str, category: str, lemmatize: Callable[[str], str]) -> float:
    """QA-Acc of one answer, in [0, 1].

    color, shape, YesNo: F1 within the category's words (without a literal yes or no, YesNo is 0). number: F1 over the
    integers. Everything else: the share of the keywords that the answer contains.
    """
    said, wanted = (normalise(text, lemmatize).split() for text in (answer, keywords))
    if category in DOMAINS:
        said, wanted = (list(DOMAINS[category].intersection(words)) for words in (said, wanted))
    elif category == "number":
        said, wanted = ([number for word in words if (number := _integer(word))] for words in (said, wanted))
    same = sum((Counter(said) & Counter(wanted)).values())
    if not same:
        return 0.0
    precision, recall = same / len(said), same / len(wanted)
    if category in DOMAINS or category == "number":
        return 2 * precision * recall / (precision + recall + EPSILON)
    return recall


def _integer(word: str) -> str:
    try:
        return str(int(word))
    except ValueError:
        return ""


def retrieval_f1(predicted: frozenset[str], gold: frozenset[str]) -> float:
    """F1 between two sets of source ids."""
    same = len(predicted & gold)
    return 2 * same / (len(predicted) + len(gold)) if same else 0.0


def score(
    questions: Sequence[Question],
    predictions: Mapping[str, Prediction],
    lemmatize: Callable[[str], str],
    fluency: Callable[[Sequence[tuple[tuple[str, ...], str]]], list[float]] | None = None,
) -> dict[str, dict[str, float | None]]:
    """Every question's figures; an unanswered one scores 0 in all of them.

    Args:
        questions: The gold file.
        predictions: By question id.
        lemmatize: See `load_lemmatizer`.
        fluency: (gold answers, answer) pairs to QA-FL in [0, 1]: `lite.metrics.fluency`. Without it `qa_fl` and `qa`
            are None, never a number.

    Returns:
        `{id: {"qa_acc", "qa_fl", "qa", "retrieval_f1"}}`, fractions of 1; None is "not available".
    """
    answered = [question for question in questions if question.id in predictions]
    fluencies = None
    if fluency is not None:
        found = fluency([(question.answers, predictions[question.id].answer) for question in answered])
        fluencies = {question.id: value for question, value in zip(answered, found, strict=True)}
    scores: dict[str, dict[str, float | None]] = {}
    for question in questions:
        prediction = predictions.get(question.id)
        accuracy = retrieval = fluent = 0.0
        if prediction is not None:
            accuracy = qa_accuracy(prediction.answer, question.keywords, question.category, lemmatize)
            retrieval = retrieval_f1(prediction.sources, question.sources or frozenset())
            fluent = fluencies[question.id] if fluencies else 0.0
        scores[question.id] = {
            "qa_acc": accuracy,
            "qa_fl": fluent if fluency else None,
            "qa": accuracy * fluent if fluency else None,
            "retrieval_f1": retrieval if question.sources is not None else None,
        }
    return scores
