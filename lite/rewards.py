"""What is rewarded. Plain functions with the signature that TRL calls: `f(completions, **columns) -> list[float]`.

The paper's formulas are not public at the time of writing; these are our choices. Weights are set by the recipe.
"""

from __future__ import annotations

from collections.abc import Callable

from lite.prompts import parse_stage1


def label(completions: list[list[dict]], label: list[str], log_extra: Callable, **_: object) -> list[float]:
    """Stage 1: 1 when the completion is the right word, else 0. Logs why a completion could not be read.

    Args:
        completions: One assistant turn each, `[{"role": "assistant", "content": text}]`.
        label: The right word of each, `Yes` or `No`.
        log_extra: TRL's hook for further columns of the completions table.
    """
    parsed = [parse_stage1(completion[0]["content"]) for completion in completions]
    log_extra("expected", label)
    log_extra("format_failure", [reason for _, reason in parsed])
    return [float(word == right) for (word, _), right in zip(parsed, label, strict=True)]


def format(completions: list[list[dict]], **_: object) -> list[float]:
    """Stage 1: 1 when the completion is exactly one of the two words, else 0."""
    return [float(parse_stage1(completion[0]["content"])[0] is not None) for completion in completions]
