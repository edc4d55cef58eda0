"""Bootstrap intervals against what is known of them."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lite.metrics.bootstrap import mean

settings.register_profile("busy machine", deadline=None)
settings.load_profile("busy machine")

values = st.lists(st.floats(-100, 100), min_size=1, max_size=30)


def normal(seed, n=40):
    return np.random.default_rng(seed).normal(size=n)


@given(values, st.integers(0, 5))
def test_an_interval_lies_within_the_values_and_repeats_with_the_seed(sample, seed):
    figure = mean(sample, seed)
    assert figure.keys() == {"value", "low", "high"}
    assert all(type(number) is float for number in figure.values())
    assert figure["value"] == pytest.approx(sum(sample) / len(sample))
    assert figure["low"] <= figure["high"]
    assert min(sample) - 1e-9 <= figure["low"]
    assert figure["high"] <= max(sample) + 1e-9
    assert figure == mean(np.array(sample), seed)


def test_another_seed_draws_another_interval_of_the_same_value():
    one, other = mean(normal(0), 0), mean(normal(0), 1)
    assert one["value"] == other["value"]
    assert one != other


@given(values, st.floats(0.1, 10), st.floats(-10, 10))
def test_the_interval_moves_and_stretches_with_the_values(sample, scale, shift):
    before, after = mean(sample), mean([scale * value + shift for value in sample])
    assert after == pytest.approx({key: scale * number + shift for key, number in before.items()}, abs=1e-6)


@given(st.floats(-5, 5), st.integers(1, 20))
def test_equal_values_leave_no_doubt(value, n):
    assert mean([value] * n) == pytest.approx({"value": value, "low": value, "high": value})


def test_the_interval_is_that_of_all_resamples_of_a_small_sample():
    sample = [0.0, 0.0, 1.0, 1.0, 1.0]
    every = [np.mean(drawn) for drawn in itertools.product(sample, repeat=5)]
    low, high = np.percentile(every, [2.5, 97.5])
    assert mean(sample) == pytest.approx({"value": 0.6, "low": low, "high": high})


def test_the_width_is_that_of_the_normal_approximation():
    for n in (100, 1600):
        sample = normal(0, n)
        figure = mean(sample)
        assert figure["high"] - figure["low"] == pytest.approx(2 * 1.96 * sample.std() / np.sqrt(n), rel=0.1)
        assert figure["low"] < figure["value"] < figure["high"]


def test_the_interval_covers_the_true_mean_nineteen_times_in_twenty():
    figures = [mean(normal(seed)) for seed in range(300)]
    covered = np.mean([figure["low"] <= 0 <= figure["high"] for figure in figures])
    assert 0.9 <= covered <= 0.98


def test_differences_of_pairs_tell_what_the_two_means_alone_do_not():
    baseline = normal(0)
    ours = baseline + 0.1 + normal(1) / 20
    assert mean(ours - baseline)["low"] > 0
    assert mean(ours)["low"] < mean(baseline)["high"]
    assert mean(baseline - ours)["high"] < 0


@pytest.mark.parametrize("empty", [[], (), np.array([])])
def test_no_question_is_refused(empty):
    with pytest.raises(ValueError, match="no question"):
        mean(empty)
