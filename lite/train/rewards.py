"""What is rewarded. Plain functions with the signature that TRL calls: `f(completions, **columns) -> list[float]`.

The paper's formulas are not public at the time of writing; these are our choices. Weights are set by the recipe.
A completion is one assistant turn, `[{"role": "assistant", "content": text}]`; every reward lies in [0, 1].
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial, update_wrapper

from lite.metrics.answers import answer_score, exact_match, normalise, token_f1
from lite.metrics.ranking import ndcg, set_f1
from lite.stages.answer import final_order
from lite.stages.prompts import DISMISSAL, HELPS, NO, UNKNOWN, YES, citations, parse_stage1, parse_stage2
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
MIN_WORDS = 2  # that the chain must say of a document for it to count as discussed; the verdict asked for is enough
VERDICT = re.compile(rf"\b{HELPS}\b|{DISMISSAL.pattern}", re.IGNORECASE)


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


def grounding(completions: list[list[dict]], stage1_order: list[list[int]], **_: object) -> list[float]:
    """Share of the ranked documents that the chain discusses and does not dismiss; 0 if it cites what does not exist.

    Where `<rank>` says `none`: share of all documents that the chain dismisses. See `DISMISSAL` for its words.
    """
    rewards = []
    for completion, order in zip(completions, stage1_order, strict=True):
        output = parse_stage2(completion[0]["content"], len(order))
        cited = citations(output.reasoning)
        if output.failure or not all(1 <= number <= len(order) for number in cited):
            rewards.append(0.0)
            continue
        said = discussion(output.reasoning)
        if output.ranking:
            good = [number for number in output.ranking if number in said and not DISMISSAL.search(said[number])]
            rewards.append(len(good) / len(output.ranking))
        else:
            rewards.append(sum(bool(DISMISSAL.search(said.get(number, ""))) for number in order) / len(order))
    return rewards


def discussion(reasoning: str) -> dict[int, str]:
    """What a chain says of each document: all that follows its number up to the next one.

    Left out where that is neither `MIN_WORDS` nor a verdict.
    """
    said: dict[int, str] = {}
    _, *parts = re.split(r"\[([0-9]{1,4})\]", reasoning)
    for number, text in zip(parts[::2], parts[1::2], strict=True):
        said[int(number)] = f"{said.get(int(number), '')} {text}"
    return {
        number: text
        for number, text in said.items()
        if VERDICT.search(text) or len(re.findall(r"\w+", text)) >= MIN_WORDS
    }
