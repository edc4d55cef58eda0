"""Ranking metrics against scikit-learn, hand-worked numbers and brute force."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import ndcg_score, roc_auc_score

from lite.metrics.ranking import (
    NDCG_AT,
    RECALL_AT,
    Judged,
    chance,
    compare,
    filter_quality,
    keep,
    ndcg,
    ndcg_at,
    recall_at,
    summarise,
    tune_filter,
)

settings.register_profile("busy machine", deadline=None)
settings.load_profile("busy machine")
# A resample may draw only questions without an irrelevant document: its AUC is NaN.
pytestmark = pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning", "ignore:All-NaN:RuntimeWarning")

FIGURES = {"auc", "accuracy", f"ndcg@{NDCG_AT}", *(f"recall@{k}" for k in RECALL_AT)}
tied = st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0])
probabilities = st.floats(0, 1, width=32)


@st.composite
def questions(draw, scores=tied | probabilities, unique=False, most=5):
    judged = []
    for _ in range(draw(st.integers(1, most))):
        n = draw(st.integers(2, 8))
        labels = draw(arrays(bool, n))
        labels[draw(st.integers(0, n - 1))] = True
        judged.append(Judged(draw(arrays(float, n, elements=scores, unique=unique)), labels))
    return judged


def random_run(seed, n=40, signal=1.0):
    """`n` questions of 14 documents, two of them relevant and `signal` standard deviations better."""
    rng = np.random.default_rng(seed)
    labels = np.arange(14) < 2
    return [Judged(1 / (1 + np.exp(-rng.normal(labels * signal))), labels) for _ in range(n)]


def pooled(run):
    return np.concatenate([q.labels for q in run]), np.concatenate([q.scores for q in run])


@given(questions())
def test_auc_is_that_of_all_pairs_pooled(run):
    labels, scores = pooled(run)
    assume(not labels.all())
    assert summarise(run, resamples=1)["auc"]["value"] == pytest.approx(roc_auc_score(labels, scores))


@given(questions(most=4), st.integers(0, 20))
def test_a_resample_has_the_figures_of_the_data_that_were_drawn(run, seed):
    counts = np.random.default_rng(seed).multinomial(len(run), np.full(len(run), 1 / len(run)), size=1)[0]
    drawn = [question for question, count in zip(run, counts, strict=True) for _ in range(count)]
    labels, scores = pooled(drawn)
    assume(not labels.all())
    figures = summarise(run, resamples=1, seed=seed)
    expected = summarise(drawn, resamples=1)
    assert figures["auc"]["low"] == figures["auc"]["high"] == pytest.approx(roc_auc_score(labels, scores))
    for name in FIGURES:
        assert figures[name]["low"] == pytest.approx(expected[name]["value"])


def test_figures_by_hand():
    question = Judged(np.array([0.9, 0.1, 0.8, 0.7]), np.array([False, True, True, False]))
    assert [recall_at(question, k) for k in (1, 2, 3, 4, 9)] == [0, 0.5, 0.5, 1, 1]
    ideal = 1 + 1 / np.log2(3)
    assert ndcg_at(question, 5) == pytest.approx((1 / np.log2(3) + 1 / np.log2(5)) / ideal)
    assert ndcg_at(question, 3) == pytest.approx((1 / np.log2(3)) / ideal)
    figures = summarise([question], threshold=0.75, resamples=1)
    assert figures.keys() == FIGURES
    assert figures["auc"]["value"] == 0.25
    assert figures["accuracy"]["value"] == 0.5  # 0.9 is wrong, 0.1 is wrong, 0.8 and 0.7 are right
    assert figures["recall@3"]["value"] == 0.5


def test_a_score_at_the_threshold_counts_as_yes():
    question = Judged(np.array([0.5, 0.4]), np.array([True, False]))
    assert summarise([question], threshold=0.5, resamples=1)["accuracy"]["value"] == 1


@given(questions(probabilities, unique=True, most=1), st.integers(1, 10))
def test_ndcg_is_scikit_learns(run, k):
    (question,) = run
    assert ndcg_at(question, k) == pytest.approx(ndcg_score([question.labels], [question.scores], k=k))


@given(questions(probabilities, unique=True, most=1), st.integers(1, 10))
def test_recall_is_the_share_of_relevant_documents_among_the_best(run, k):
    (question,) = run
    best = sorted(zip(question.scores, question.labels, strict=True), reverse=True)[:k]
    assert recall_at(question, k) == pytest.approx(sum(label for _, label in best) / question.labels.sum())


@given(questions(probabilities, unique=True), st.randoms(use_true_random=False))
def test_order_of_documents_and_questions_does_not_matter(run, random):
    shuffled = []
    for question in run:
        order = np.array(random.sample(range(len(question.scores)), len(question.scores)))
        shuffled.append(Judged(question.scores[order], question.labels[order]))
    random.shuffle(shuffled)
    before, after = (summarise(r, resamples=1) for r in (run, shuffled))
    for name in FIGURES:
        assert before[name]["value"] == pytest.approx(after[name]["value"], nan_ok=True)


@given(questions(tied))
def test_only_the_order_of_scores_matters_for_all_but_the_accuracy(run):
    stretched = [Judged(np.exp(3 * q.scores) - 7, q.labels) for q in run]
    before, after = (summarise(r, resamples=1) for r in (run, stretched))
    for name in FIGURES - {"accuracy"}:
        assert before[name]["value"] == pytest.approx(after[name]["value"], nan_ok=True)


def test_equal_scores_favour_no_place_in_the_pool():
    equal = np.zeros(12)
    by_place = [Judged(equal, np.arange(12) == place) for place in range(12)]
    for k in (1, 3, 5):
        assert np.mean([recall_at(question, k) for question in by_place]) == pytest.approx(k / 12)
    first = [Judged(np.zeros(n), np.arange(n) == 0) for n in range(2, 40)]
    last = [Judged(np.zeros(n), np.arange(n) == n - 1) for n in range(2, 40)]
    for run in (first, last):
        assert np.mean([recall_at(question, 1) for question in run]) < 0.5


def test_a_perfect_run_and_its_opposite():
    labels = np.arange(20) < 2
    figures = summarise([Judged(labels.astype(float), labels)] * 3, resamples=5)
    assert all(figures[name] == {"value": 1, "low": 1, "high": 1} for name in FIGURES - {"recall@1"})
    assert figures["recall@1"]["value"] == 0.5
    figures = summarise([Judged(1.0 - labels, labels)] * 3, resamples=5)
    assert all(figure["value"] == 0 for figure in figures.values())


def random_figures(pools, repeats=1500):
    rng = np.random.default_rng(0)
    run = [Judged(rng.random(len(labels)), labels) for labels in pools for _ in range(repeats)]
    figures = {f"recall@{k}": np.mean([recall_at(question, k) for question in run]) for k in RECALL_AT}
    figures[f"ndcg@{NDCG_AT}"] = np.mean([ndcg_at(question, NDCG_AT) for question in run])
    figures["auc"] = summarise(run[::10], resamples=1)["auc"]["value"]
    return figures


def test_chance_is_what_random_scores_reach_on_average():
    pools = [np.arange(6) < 1, np.arange(12) < 2, np.arange(17) < 7]
    expected = chance([Judged(np.zeros(len(labels)), labels) for labels in pools])
    assert expected.keys() == FIGURES
    for name, value in random_figures(pools).items():
        assert expected[name]["value"] == pytest.approx(value, abs=0.02)


def test_chance_in_pools_smaller_than_the_cut():
    pools = [np.arange(2) < 1, np.arange(3) < 2]
    expected = chance([Judged(np.zeros(len(labels)), labels) for labels in pools])
    for name, value in random_figures(pools).items():
        assert expected[name]["value"] == pytest.approx(value, abs=0.02)


def better_constant(pools):
    constants = (summarise([Judged(np.full(len(p), c), p) for p in pools], resamples=1) for c in (0.0, 1.0))
    return max(figures["accuracy"]["value"] for figures in constants)


@pytest.mark.parametrize(
    "relevant",
    [
        (1, 2, 3),
        (1, 9, 9),
    ],
)
def test_accuracy_by_chance_is_that_of_the_better_constant(relevant):
    pools = [np.arange(10) < count for count in relevant]
    expected = chance([Judged(np.zeros(10), labels) for labels in pools])["accuracy"]["value"]
    assert expected == pytest.approx(better_constant(pools))


def test_intervals_hold_the_value_and_repeat_with_the_seed():
    run = random_run(0)
    figures = summarise(run, resamples=300)
    for figure in figures.values():
        assert figure["low"] < figure["value"] < figure["high"]
    assert figures == summarise(run, resamples=300, seed=0)
    assert figures["auc"]["low"] != summarise(run, resamples=300, seed=1)["auc"]["low"]


def test_intervals_cover_the_true_value_nineteen_times_in_twenty():
    truth = summarise(random_run(99, n=1500), resamples=1)["recall@3"]["value"]
    intervals = [summarise(random_run(seed), resamples=200)["recall@3"] for seed in range(120)]
    covered = np.mean([interval["low"] <= truth <= interval["high"] for interval in intervals])
    assert 0.88 <= covered <= 0.995


def test_a_run_compared_with_itself_differs_by_nothing():
    run = random_run(0)
    assert compare(run, run, resamples=50) == {name: {"value": 0, "low": 0, "high": 0} for name in FIGURES}


def test_comparison_is_ours_minus_the_baseline():
    ours, baseline = random_run(1, signal=2), random_run(2, signal=0.5)
    differences = compare(ours, baseline, resamples=100)
    for name, figure in summarise(ours, resamples=1).items():
        expected = figure["value"] - summarise(baseline, resamples=1)[name]["value"]
        assert differences[name]["value"] == pytest.approx(expected)
    assert differences["auc"]["low"] > 0
    assert compare(baseline, ours, resamples=100)["auc"]["high"] < 0


def test_pairing_narrows_the_interval_of_runs_that_agree():
    rng = np.random.default_rng(3)
    baseline = random_run(3)
    ours = [Judged(q.scores + rng.normal(0, 0.02, 14), q.labels) for q in baseline]
    paired = compare(ours, baseline, resamples=300)["auc"]
    alone = [summarise(run, resamples=300)["auc"] for run in (ours, baseline)]
    unpaired = np.hypot(*(figure["high"] - figure["low"] for figure in alone))
    assert paired["high"] - paired["low"] < unpaired / 3


@given(
    arrays(float, st.integers(1, 12), elements=tied | probabilities),
    probabilities,
    st.integers(1, 12),
)
def test_filter_keeps_the_best_within_its_bounds(scores, threshold, max_kept):
    kept = keep(scores, threshold, max_kept)
    assert len(kept) == min(int((scores >= threshold).sum()), max_kept)
    assert len(set(kept)) == len(kept)
    assert np.array_equal(scores[kept], np.sort(scores)[::-1][: len(kept)])


def test_filter_quality_by_hand():
    one = Judged(np.array([0.9, 0.8, 0.1, 0.2]), np.array([True, False, True, False]))
    two = Judged(np.array([0.1, 0.3]), np.array([True, False]))
    assert filter_quality([one, two], 0.5, 10) == {"recall_kept": 0.25, "share_filtered": pytest.approx(4 / 6)}
    assert filter_quality([one, two], 0.5, 1) == {"recall_kept": 0.25, "share_filtered": pytest.approx(5 / 6)}
    assert filter_quality([one, two], 0.0, 10) == {"recall_kept": 1, "share_filtered": 0}


@given(questions(), st.sampled_from([0.5, 0.8, 0.98, 1.0]))
def test_tuned_filter_keeps_the_recall_and_no_other_removes_more(run, min_recall):
    tuned = tune_filter(run, min_recall)
    assert tuned["recall_kept"] >= min_recall
    measured = filter_quality(run, tuned["threshold"], int(tuned["max_kept"]))
    assert measured == {key: tuned[key] for key in ("recall_kept", "share_filtered")}

    scores = np.unique(np.concatenate([question.scores for question in run]))
    thresholds = np.unique([*scores, *((scores[1:] + scores[:-1]) / 2), *np.linspace(0, 1.01, 9)])
    tried = [filter_quality(run, t, cap) for t in thresholds for cap in range(1, 9)]
    best = max(found["share_filtered"] for found in tried if found["recall_kept"] >= min_recall)
    assert tuned["share_filtered"] == pytest.approx(best)


def test_tuning_uses_the_threshold_and_the_cap():
    labels = np.array([True, False, False, False])
    confident = Judged(np.array([0.9, 0.2, 0.1, 0.1]), labels)
    crowded = Judged(np.array([0.9, 0.85, 0.8, 0.8]), labels)
    assert tune_filter([confident, crowded], 1.0)["max_kept"] == 1
    second = Judged(np.array([0.85, 0.9, 0.8, 0.8]), labels)
    tuned = tune_filter([confident, second], 1.0)
    assert (tuned["max_kept"], tuned["threshold"]) == (2, 0.85)
    assert tuned["share_filtered"] == pytest.approx(5 / 8)


@pytest.mark.parametrize(("scores", "labels"), [([0.1, 0.2], [True]), ([0.1, 0.2], [False, False]), ([], [])])
def test_scores_without_their_labels_or_without_a_relevant_one_are_refused(scores, labels):
    with pytest.raises(ValueError, match=f"{len(scores)} scores, {len(labels)} labels"):
        Judged(np.array(scores), np.array(labels, dtype=bool))


@pytest.mark.parametrize("score", [np.nan, np.inf])
def test_scores_that_are_no_numbers_are_refused(score):
    with pytest.raises(ValueError, match="score"):
        Judged(np.array([score, 0.2]), np.array([True, False]))


def test_labels_that_are_not_boolean_are_refused():
    with pytest.raises(ValueError, match="label"):
        Judged(np.array([0.1, 0.2]), np.array([1, 0]))


def test_comparison_of_runs_of_different_length_is_refused():
    with pytest.raises(ValueError, match="40 and 39"):
        compare(random_run(0), random_run(0)[1:])


def test_comparison_of_other_questions_is_refused():
    ours = [Judged(np.array([0.1, 0.2]), np.array([True, False]))]
    with pytest.raises(ValueError, match="same questions"):
        compare(ours, [Judged(np.array([0.1, 0.2]), np.array([False, True]))], resamples=1)


def test_a_run_without_questions_is_refused():
    with pytest.raises(ValueError, match="question"):
        summarise([])


def gain(order, relevant):
    return sum((number in relevant) / math.log2(1 + place) for place, number in enumerate(order, start=1))


@given(
    st.integers(1, 5).flatmap(
        lambda n: st.tuples(st.permutations(range(1, n + 1)), st.sets(st.integers(1, n), min_size=1))
    )
)
def test_ndcg_is_the_gain_over_that_of_the_best_order(drawn):
    order, relevant = drawn
    best = max(gain(other, relevant) for other in itertools.permutations(order))
    assert ndcg(order, list(relevant)) == pytest.approx(gain(order, relevant) / best)
