"""Exact match and token F1 of a short answer against the accepted ones, after SQuAD (Rajpurkar et al., 2016).

`answer_score` chooses between them and the official metrics of the two benchmarks.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence

from lite.metrics import multimodalqa, webqa

ARTICLES = ("a", "an", "the")
SIGNS = {ord(dash): "-" for dash in "−–‐‑﹣－"}
# A comparison; a number with its sign; a grade, a blood group or a name like C++ with what is behind it; a word.
WORD = re.compile(
    r"[<>≤≥=≠±≈]|(?<![\w.)-])-(?=[\d.])[\w.]+|(?<!\w)[^\W\d_]+(?:\+\+?|#)(?!\w)|(?<!\w)(?:[a-fo]|ab)-(?![\w-])|[\w.]+"
)
QUANTITY = re.compile(r"^(?!\d+0s$)(-?\d+(?:\.\d+)?)(?!st$|nd$|rd$|th$)([^\W\d_]{1,4}[23]?)$")


def normalise(text: str) -> str:
    """Lower case, without accents, punctuation and English articles, single spaces.

    As in SQuAD, what joins letters or digits vanishes (`U.S.` is `us`, `1,000` is `1000`). Other than there, a decimal
    point stays, and all other punctuation parts words: `red/white` is two. Signs that change the meaning stay, too:
    `-5`, `C++`, `C#`, `A+`, and comparisons, which are words of their own. `3bar` is `3 bar`.
    """
    return " ".join(word for word in _words(text) if word not in ARTICLES)


def _words(text: str) -> list[str]:
    text = text.translate(SIGNS).replace("<=", "≤").replace(">=", "≥").replace("!=", "≠")
    text = re.sub(r"[-=]+>|<[-=]+", " ", text)  # arrows
    kept = "".join(c for c in unicodedata.normalize("NFKD", text.replace("≠", "\0")) if not unicodedata.combining(c))
    bare = kept.replace("\0", "≠").lower()
    bare = re.sub(r"['’`]|(?<=\d),(?=\d{3}\b)|(?<!\d)\.|\.(?!\d)", "", bare)
    return [part for found in WORD.findall(bare) for part in QUANTITY.sub(r"\1 \2", found).split()]


def _compared(text: str) -> list[str]:
    """The words of `normalise`; where it leaves none, what the text has: of multiple choice, `A` is not `the`."""
    words = _words(text)
    return [word for word in words if word not in ARTICLES] or words or text.split()


def exact_match(answer: str, accepted: Sequence[str]) -> float:
    """1 when the answer equals an accepted one after `normalise`, else 0."""
    return float(_compared(answer) in [_compared(other) for other in accepted])


def token_f1(answer: str, accepted: Sequence[str]) -> float:
    """The best F1 over shared words with any accepted answer, in [0, 1]."""
    return max((_f1(_compared(answer), _compared(other)) for other in accepted), default=0.0)


def answer_score(metric: str, answer: str, accepted: Sequence[str], keywords: str = "", category: str = "") -> float:
    """The data set's own metric of one answer, in [0, 1].

    Args:
        metric: `webqa` (QA-Acc), `multimodalqa` (list F1; `;` or a line break separates the answers of a list), or
            empty: token F1 with the best accepted answer.
        answer: What was said.
        accepted: The accepted answers; for `multimodalqa` the parts of the one right list.
        keywords, category: Of WebQA.
    """
    if metric == "webqa":
        lemmatize, _ = webqa.load_lemmatizer()
        return webqa.qa_accuracy(answer, keywords or accepted[0], category.rpartition(": ")[2], lemmatize)
    if metric == "multimodalqa":
        return multimodalqa.list_f1(multimodalqa.answer_list(answer), accepted)
    return token_f1(answer, accepted)


def answer_figures(metric: str, answer: str, accepted: Sequence[str]) -> tuple[float, float]:
    """(exact match, F1) of one answer: of lists for `multimodalqa`, with the best accepted answer otherwise."""
    if metric == "multimodalqa":
        said = multimodalqa.answer_list(answer)
        return multimodalqa.list_em(said, accepted), multimodalqa.list_f1(said, accepted)
    return exact_match(answer, accepted), token_f1(answer, accepted)


def _f1(words: list[str], others: list[str]) -> float:
    if not words or not others:
        return float(words == others)
    shared = sum((Counter(words) & Counter(others)).values())
    return 2 * shared / (len(words) + len(others))
