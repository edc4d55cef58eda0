"""Signs of a collapse: each is seen where it is, and nowhere else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lite.evaluate.report import health_lines
from lite.train.health import commonest_excess, highest_reward, signs, summary

GOOD = {
    "reward": 0.8, "equal_groups": 0.4, "completions/mean_length": 100.0, "completions/clipped_ratio": 0.0,
    "commonest_excess": 0.1, "kl": 0.1,
}  # fmt: skip


def run(steps: int, **changed: float) -> list[dict]:
    return [{"step": step, **GOOD, **changed} for step in range(1, steps + 1)]


def test_a_run_that_learns_shows_no_sign() -> None:
    rows = [row | {"reward": 0.1 + 0.04 * i} for i, row in enumerate(run(30))]
    assert signs(rows, 1.5) == {}
    assert summary(rows, 1.5) == []


@pytest.mark.parametrize(
    ("later", "name", "settings"),
    [
        ({"equal_groups": 0.9}, "groups alike", ("num_generations", "temperature", "hard_share")),
        ({"equal_groups": 0.9, "reward": 0.01}, "groups alike", ("cold_start_steps", "first_word_credit")),
        ({"equal_groups": 0.9, "reward": 1.45}, "groups alike", ("learnt what it can",)),
        ({"completions/mean_length": 20.0}, "shorter and shorter", ("learning_rate", "beta")),
        ({"completions/clipped_ratio": 0.9}, "cut off", ("max_completion_length", "cold_start_steps")),
        ({"commonest_excess": 0.5}, "one answer for all", ("learning_rate", "beta", "temperature")),
        ({"kl": 4.0}, "KL runs away", ("learning_rate", "max_grad_norm", "beta")),
    ],
)
def test_each_sign_is_named_with_the_settings_to_change(later: dict, name: str, settings: tuple[str, ...]) -> None:
    healthy, ill = run(10), run(10, **later)
    found = signs(healthy + ill, 1.5)
    assert list(found) == [name]
    assert all(setting in found[name] for setting in settings)
    assert signs(healthy + ill[:3], 1.5) == {}, "a few steps are no sign"


@pytest.mark.parametrize(
    "later", [{"completions/mean_length": 20.0, "reward": 1.2}, {"kl": 4.0, "reward": 1.2}], ids=["brief", "far"]
)
def test_what_comes_with_a_higher_reward_is_no_collapse(later: dict) -> None:
    assert signs(run(10) + run(10, **later), 1.5) == {}


def test_the_few_tokens_of_stage_1_do_not_count_as_shrinking() -> None:
    assert signs(run(10, **{"completions/mean_length": 3.0}) + run(10, **{"completions/mean_length": 1.0}), 1.5) == {}


def test_a_run_without_the_figures_shows_no_sign() -> None:
    assert signs([{"step": step, "loss": 1.0} for step in range(20)], 1.5) == {}


def test_the_report_says_from_which_step_and_how_long() -> None:
    rows = [row | {"step": i} for i, row in enumerate(run(20) + run(20, commonest_excess=0.9) + run(20), start=1)]
    (line,) = summary(rows, 1.5)
    assert line.startswith("One answer for all: from step 24, in 23 of 60 steps. Nearly all questions")


def test_one_answer_for_all_counts_only_beyond_what_is_right() -> None:
    assert commonest_excess(["Yes"] * 8, ["Yes", "No"] * 4) == 0.5
    assert commonest_excess(["Yes", "No"] * 4, ["Yes", "No"] * 4) == 0.0
    assert commonest_excess(["Paris"] * 8, ["Paris"] * 8) == 0.0, "one question, rightly answered"
    assert commonest_excess(["no"] * 8, [str(i) for i in range(8)]) == 7 / 8
    assert commonest_excess([None] * 8, ["Yes"] * 8) == 0.0, "nothing can be read: that is the format's affair"


@given(st.lists(st.tuples(st.sampled_from([None, "a", "b"]), st.sampled_from(["a", "b"])), min_size=1))
def test_excess_is_at_most_what_is_not_right(rows: list[tuple[str | None, str]]) -> None:
    given_answers, right = zip(*rows, strict=True)
    assert -1 <= commonest_excess(given_answers, right) <= 1 - 1 / len(rows)
    assert commonest_excess(right, right) == 0


def test_the_highest_reward_is_the_sum_of_the_weights() -> None:
    assert highest_reward([1.0, 0.5], [len, max]) == 1.5
    assert highest_reward(None, [len, max]) == 2.0


def test_the_report_lists_signs_says_where_there_was_none_and_is_silent_of_older_runs() -> None:
    assert health_lines({"health": ["Cut off: from step 12, in 9 of 80 steps."]})[2] == (
        "- Cut off: from step 12, in 9 of 80 steps."
    )
    assert "No sign of a collapse was seen." in health_lines({"health": []})
    assert health_lines({}) == []
