"""What is rewarded. Plain functions with the signature that TRL calls: `f(completions, **columns) -> list[float]`.

The paper's formulas are not public at the time of writing; these are our choices. Weights are set by the recipe.
A completion is one assistant turn, `[{"role": "assistant", "content": text}]`; every reward lies in [0, 1].
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial, update_wrapper

from lite.metrics.answers import answer_score, exact_match, normalise, token_f1
from lite.metrics.ranking import ndcg, set_f1
from lite.schema import Document
from lite.stages.answer import final_order
from lite.stages.prompts import DISMISSAL, HELPS, NO, UNKNOWN, YES, Stage2Output, parse_stage1, parse_stage2
from lite.stages.quotes import QUOTE_CHARS, QUOTED, Passage, locate, passages, quotes_of, says, tokens
from lite.train.health import commonest_excess

# ------------------------------------------------------------------------------------------------------------ stage 1


def label(
    completions: list[list[dict]],
    label: list[str],
    log_extra: Callable,
    log_metric: Callable,
    credit: float = 0.0,
    **_: object,
) -> list[float]:
    """Stage 1: 1 when the completion is the right word, else 0. Logs why a completion could not be read.

    Args:
        completions: One assistant turn each, `[{"role": "assistant", "content": text}]`.
        label: The right word of each, `Yes` or `No`.
        log_extra: TRL's hook for further columns of the completions table.
        log_metric: TRL's hook for further figures of a step.
        credit: What a completion earns that begins with the right word and goes on. It is judged by its first word
            alone, which is also all that the filter's score looks at: naming both words earns no more than a guess.
    """
    parsed = [parse_stage1(completion[0]["content"]) for completion in completions]
    first = [first_word(completion[0]["content"]) for completion in completions]
    log_extra("expected", label)
    log_extra("format_failure", [reason for _, reason in parsed])
    log_metric("commonest_excess", commonest_excess(first, label))
    return [
        1.0 if word == right else credit * (word is None and begun == right)
        for (word, _), begun, right in zip(parsed, first, label, strict=True)
    ]


def format(completions: list[list[dict]], credit: float = 0.0, **_: object) -> list[float]:
    """Stage 1: 1 when the completion is exactly one of the two words, `credit` when it begins with one, else 0."""
    texts = [completion[0]["content"] for completion in completions]
    return [1.0 if parse_stage1(text)[0] else credit * (first_word(text) is not None) for text in texts]


def first_word(completion: str) -> str | None:
    """The word that the completion begins with, if it is one of the two."""
    found = re.match(rf"\s*({YES}|{NO})\b", completion)
    return found and found[1]


def with_credit(reward: Callable, credit: float) -> Callable:
    """A stage 1 reward with `first_word_credit`, under its own name, by which TRL logs it."""
    return update_wrapper(partial(reward, credit=credit), reward)


# ------------------------------------------------------------------------------------------------------------ stage 2

LONG = 3  # times the words of the right answer
WHOLLY = 0.999  # an F1 of 1, but for the epsilon of the official code
# What the chain must say of a document for it to count as discussed: two words; the verdict asked for is enough
WORDS = re.compile(r"\w\W+\w")
VERDICT = re.compile(rf"\b{HELPS}?\b|{DISMISSAL.pattern}", re.IGNORECASE)


def stage2_format(
    completions: list[list[dict]], stage1_order: list[list[int]], log_extra: Callable, **_: object
) -> list[float]:
    """1 when the completion follows the grammar, else 0. Logs why not.

    Args:
        stage1_order: The numbers of the prompt's documents in the order of their stage 1 scores, best first.
        log_extra: TRL's hook for further columns of the completions table.
    """
    failures = [
        parse_stage2(completion[0]["content"], len(order)).failure
        for completion, order in zip(completions, stage1_order, strict=True)
    ]
    log_extra("format_failure", failures)
    return [float(not failure) for failure in failures]


def ranking(
    completions: list[list[dict]], stage1_order: list[list[int]], relevant: list[list[int]], **_: object
) -> list[float]:
    """nDCG of the final order (`<rank>`, then the rest in stage 1's order) times the F1 of `<rank>` as a set.

    nDCG alone would not mind `<rank>` listing everything, F1 alone would not mind its order.

    Args:
        relevant: The numbers of the relevant documents; empty where the prompt holds none: then only `none` is right.
    """
    rewards = []
    for completion, order, wanted in zip(completions, stage1_order, relevant, strict=True):
        output = parse_stage2(completion[0]["content"], len(order))
        if output.failure:
            rewards.append(0.0)
        elif not wanted:
            rewards.append(float(not output.ranking))
        else:
            rewards.append(ndcg(final_order(output.ranking, order), wanted) * set_f1(output.ranking, wanted))
    return rewards


def answer(
    completions: list[list[dict]],
    stage1_order: list[list[int]],
    relevant: list[list[int]],
    answers: list[list[str]],
    log_extra: Callable,
    log_metric: Callable,
    metric: list[str] | None = None,
    keywords: list[str] | None = None,
    category: list[str] | None = None,
    **_: object,
) -> list[float]:
    """Of `<answer>`: the data set's own metric, averaged with 1 where it is wholly right and 0 where it is not.

    F1 alone would pay 2/3 for naming both of two choices (`yes no`), more than an honest guess gets. Recall of keywords
    alone (WebQA) would pay for copying a document: answers over `LONG` times as long as the right one lose in
    proportion.

    Args:
        answers: Accepted answers. Where no document of the prompt is relevant, only `not in the documents` is.
        metric, keywords, category: See `lite.metrics.answers.answer_score`; without them it is token F1.
    """
    log_extra("accepted", [" | ".join(accepted) for accepted in answers])
    rewards = []
    right = [normalise(accepted[0] if wanted else UNKNOWN) for accepted, wanted in zip(answers, relevant, strict=True)]
    said = [
        parse_stage2(c[0]["content"], len(order)).answer for c, order in zip(completions, stage1_order, strict=True)
    ]
    log_metric("commonest_excess", commonest_excess([normalise(text) if text else None for text in said], right))
    blank = [""] * len(completions)
    columns = (stage1_order, relevant, answers, metric or blank, keywords or blank, category or blank)
    for completion, order, wanted, accepted, name, needed, kind in zip(completions, *columns, strict=True):
        output = parse_stage2(completion[0]["content"], len(order))
        if output.failure:
            rewards.append(0.0)
        elif not (wanted and name):
            right = accepted if wanted else [UNKNOWN]
            rewards.append((exact_match(output.answer, right) + token_f1(output.answer, right)) / 2)
        else:
            score = answer_score(name, output.answer, accepted, needed, kind)
            lengths = [len(right.split()) for right in accepted]
            longest = LONG * max(sum(lengths) if name == "multimodalqa" else max(lengths), len(needed.split()))
            brevity = min(1.0, longest / len(output.answer.split()))
            rewards.append((score + (score > WHOLLY)) / 2 * brevity)
    return rewards


def grounding(
    completions: list[list[dict]],
    stage1_order: list[list[int]],
    texts: list[list[str]] | None = None,
    titles: list[list[str]] | None = None,
    question: list[str] | None = None,
    **_: object,
) -> list[float]:
    """Share of the ranked documents that the chain discusses and does not dismiss; 0 if it cites what does not exist.

    Documents that the chain calls helpful and does not rank count as ranked without reason. Where `<rank>` says `none`:
    share of all documents that the chain dismisses, see `DISMISSAL` for its words. An answer that rests on no document,
    or documents for an answer that is not in them, contradict each other and earn nothing.

    Where the prompt asks for quotes, a ranked document with a text counts only if the chain quotes it, see
    `honest_quotes`; the whole is multiplied by the share of quotes that are honest, and halved where a ranked text
    holds the answer, but no quote does.

    Args:
        texts, titles: Of the prompt's documents, as it shows them, where it asks for quotes; empty for a bare image.
        question: As asked, likewise.
    """
    rewards = []
    blank = [None] * len(completions)
    columns = (stage1_order, texts or blank, titles or blank, question or blank)
    for completion, order, shown, named, asked in zip(completions, *columns, strict=True):
        output = parse_stage2(completion[0]["content"], len(order))
        found = passages(output.reasoning)
        said = _discussed(found)
        dismissed = {number for number, text in said.items() if DISMISSAL.search(text)}
        cited = {number for passage in found for number in passage.numbers}
        unknown = output.answer.strip().rstrip(".").lower() == UNKNOWN
        if output.failure or not all(1 <= number <= len(order) for number in cited) or unknown is bool(output.ranking):
            rewards.append(0.0)
        elif not output.ranking:
            rewards.append(len(dismissed.intersection(order)) / len(order))
        else:
            good = [number for number in output.ranking if number in said and number not in dismissed]
            share = 1.0
            if shown is not None:
                documents = [
                    Document(str(n), "text", title, text)
                    for n, (title, text) in enumerate(zip(named or shown, shown, strict=True), start=1)
                ]
                quotes, share = honest_quotes(output, documents, asked or "")
                good = [number for number in good if not documents[number - 1].text or number in quotes]
            helpful = {n for n, text in said.items() if n not in dismissed and VERDICT.search(text)}
            rewards.append(len(good) / len(helpful.union(output.ranking)) * share)
    return rewards


def honest_quotes(output: Stage2Output, documents: Sequence[Document], question: str) -> tuple[set[int], float]:
    """The numbers of the documents that a chain quotes honestly, and what its quotes are worth together, in [0, 1].

    A quote is honest if it stands in the document that is cited with it, has at most `QUOTE_CHARS` characters and not
    most of a longer text, says something that the question does not, and tells the document from those that are not
    ranked.
    """
    quotes = quotes_of(output.reasoning, documents)
    others = [document for n, document in enumerate(documents, start=1) if n not in output.ranking]
    known = {token.form for token in tokens(question)}
    honest = []
    for quote in quotes:
        own = [token.form for token in tokens(quote["quote"])]
        text = documents[int(quote["id"]) - 1].text
        if (
            quote["found"]
            and len(quote["quote"]) <= min(QUOTE_CHARS, max(QUOTE_CHARS // 2, len(text) // 2))
            and not known.issuperset(own)
            and not any(locate(quote["quote"], other).found for other in others)
        ):
            honest.append(quote)
    ranked = [documents[number - 1] for number in output.ranking]
    supported = not any(says(document.text, output.answer) for document in ranked) or any(
        says(quote["quote"], output.answer) for quote in honest
    )
    precision = len(honest) / len(quotes) if quotes else 1.0
    return {int(quote["id"]) for quote in honest}, precision * (1.0 if supported else 0.5)


def discussion(reasoning: str) -> dict[int, str]:
    """What a chain says of each document: all that follows its number, or a list of numbers, up to the next one.

    Quotes are no words of the chain's own. Left out where the rest is neither two words nor a verdict, unless it
    quotes.
    """
    return _discussed(passages(reasoning))


def _discussed(found: Sequence[Passage]) -> dict[int, str]:
    said: dict[int, list[str]] = {}
    for passage in found:
        for number in passage.numbers:
            said.setdefault(number, []).append(passage.text)
    return {
        number: text
        for number, text in ((number, " ".join(texts)) for number, texts in said.items())
        if WORDS.search(text) or VERDICT.search(text) or QUOTED in text
    }
