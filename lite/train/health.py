"""Signs that a GRPO run learns nothing or breaks, read from what it logs; each names the settings to change."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import fmean

WINDOW = 10  # steps that a sign must last
EQUAL_GROUPS = 0.8  # share of groups with equal rewards
NEARLY = 0.95  # of the highest reward: learnt; what is below 1 - NEARLY of it: nothing earned
SHRUNK, LONG_ENOUGH = 0.5, 8  # lengths fall below this share of the first steps' mean, if that had so many tokens
CUT_OFF = 0.5  # share of completions
ONE_ANSWER = 0.4  # share of the commonest answer, less the share of questions whose answer it could rightly be
KL, KL_GROWTH = 1.0, 2.0  # nats per token, and times the mean of the steps before

Row = Mapping[str, float]  # what a step logs: a line of metrics.jsonl


def signs(rows: Sequence[Row], highest: float) -> dict[str, str]:
    """What is wrong at the last of some steps: a short name, and a sentence with the settings to change.

    Args:
        rows: What the steps have logged so far, in order.
        highest: The highest total reward: the sum of the weights.
    """
    checks = {
        "groups alike": _groups_alike,
        "shorter and shorter": _shrinking,
        "cut off": _cut_off,
        "one answer for all": _one_answer,
        "KL runs away": _running_away,
    }
    if len(rows) < WINDOW:
        return {}
    found = {name: check(rows, highest) for name, check in checks.items()}
    return {name: text for name, text in found.items() if text}


def highest_reward(weights: Sequence[float] | None, rewards: Sequence) -> float:
    """What a completion earns that is perfect by every reward function; without weights, each counts 1."""
    return sum(weights or [1.0] * len(rewards))


def summary(rows: Sequence[Row], highest: float) -> list[str]:
    """A sentence on each sign that a whole run showed, for its report; none where there was none."""
    steps: Counter[str] = Counter()
    first: dict[str, int] = {}
    text: dict[str, str] = {}
    for end in range(WINDOW, len(rows) + 1):
        for name, sentence in signs(rows[:end], highest).items():
            steps[name] += 1
            first.setdefault(name, int(rows[end - 1].get("step", end)))
            text[name] = sentence
    return [
        f"{name[0].upper()}{name[1:]}: from step {first[name]}, in {count} of {len(rows)} steps. {text[name]}"
        for name, count in steps.items()
    ]


def commonest_excess(given: Sequence[str | None], right: Sequence[str]) -> float:
    """How much more often the commonest answer is given than any answer is right: 0 for a model that is always right.

    Args:
        given: The answer of each completion; None where it cannot be read.
        right: The right one of each.
    """
    counted = Counter(answer for answer in given if answer is not None)
    if not counted:
        return 0.0
    return (max(counted.values()) - max(Counter(right).values())) / len(given)


def _recent(rows: Sequence[Row], key: str) -> float | None:
    """The mean of the last steps; None where a step has no such figure."""
    values = [row.get(key) for row in rows[-WINDOW:]]
    return None if None in values else fmean(values)


def _groups_alike(rows: Sequence[Row], highest: float) -> str:
    share, reward = _recent(rows, "equal_groups"), _recent(rows, "reward")
    if share is None or reward is None or share <= EQUAL_GROUPS:
        return ""
    told = f"{share:.0%} of the groups have equal rewards and teach nothing. "
    if reward >= NEARLY * highest:
        return told + "The reward is near its maximum: the run has learnt what it can from these questions."
    if reward <= (1 - NEARLY) * highest:
        return told + (
            "Hardly a completion earns a reward. Set cold_start_steps (stage 2) or first_word_credit (stage 1), or "
            "raise temperature or num_generations."
        )
    return told + "Raise num_generations, temperature or hard_share."


def _shrinking(rows: Sequence[Row], highest: float) -> str:
    key = "completions/mean_length"
    before, now = _recent(rows[:WINDOW], key), _recent(rows, key)
    earned, earns = _recent(rows[:WINDOW], "reward"), _recent(rows, "reward")
    if None in (before, now, earned, earns) or before < LONG_ENOUGH or now >= SHRUNK * before:
        return ""
    if earns > earned + (1 - NEARLY) * highest:
        return ""  # it has learnt to be brief
    return (
        f"Completions have shrunk from {before:.0f} to {now:.0f} tokens, and the reward has not risen. Lower "
        "learning_rate or raise beta."
    )


def _cut_off(rows: Sequence[Row], highest: float) -> str:
    share = _recent(rows, "completions/clipped_ratio")
    if share is None or share <= CUT_OFF:
        return ""
    return (
        f"{share:.0%} of the completions are cut off at max_completion_length. Raise it, or set cold_start_steps "
        "(stage 2), which teaches the length."
    )


def _one_answer(rows: Sequence[Row], highest: float) -> str:
    excess = _recent(rows, "commonest_excess")
    if excess is None or excess <= ONE_ANSWER:
        return ""
    return (
        "Nearly all questions get the same answer, far more often than it is right. Lower learning_rate, or raise beta "
        "or temperature; if one answer is right for most questions, balance the data."
    )


def _running_away(rows: Sequence[Row], highest: float) -> str:
    if len(rows) < 2 * WINDOW:
        return ""
    now, before = _recent(rows, "kl"), _recent(rows[:-WINDOW], "kl")
    earns, earned = _recent(rows, "reward"), _recent(rows[:-WINDOW], "reward")
    if None in (now, before, earns, earned) or now < KL or now < KL_GROWTH * before:
        return ""
    if earns > earned + (1 - NEARLY) * highest:
        return ""  # it goes far, but somewhere
    return (
        f"The KL divergence from the model that the run began with has risen from {before:.1f} to {now:.1f} nats per "
        f"token within {WINDOW} steps, and the reward has not. Lower learning_rate or max_grad_norm, or raise beta."
    )
