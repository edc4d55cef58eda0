"""Candidate pools and training pairs, on the bundled corpus and on small ones made here."""

import random
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from lite.data.flags import country, load_candidates, load_corpus, load_examples
from lite.data.pools import Corpus, draw_negative, hard_pool, training_pairs
from lite.metrics.ranking import Judged, summarise
from lite.schema import Document, Example, LiteError


@pytest.fixture(scope="module")
def everything():
    return Corpus(load_candidates("test"))


@pytest.fixture(scope="module")
def training():
    return Corpus(load_candidates("train"))


@pytest.fixture(scope="module")
def train():
    return load_examples("train")


@pytest.fixture(scope="module")
def asked():
    return load_examples("test")


def drawn(pairs):
    return [(pair.example.id, pair.document.id, pair.relevant) for pair in pairs]


def small_corpus():
    return Corpus(
        [
            Document("niger", "image", "Flag of Niger"),
            Document("nigeria", "image", "Flag of Nigeria"),
            Document("people", "text", "Niger: people", "Hausa and Zarma live in Niger."),
            Document("chess", "text", "Chess", "A board game with kings, bishops and pawns."),
            Document("rain", "text", "Rain", "Water that falls from clouds."),
            Document("bread", "text", "Bread", "Flour, water, salt and yeast."),
        ]
    )


def small_example(corpus, relevant="niger", pool=("niger", "chess", "rain")):
    documents = tuple(document for document in corpus.documents if document.id in pool)
    return Example("q", "Which colors has the flag of Niger?", documents, frozenset([relevant]))


def test_pairs_are_balanced_in_all_and_for_every_question(train, training):
    pairs = training_pairs(train, training, 0.7, 0)
    assert Counter(pair.relevant for pair in pairs) == {
        True: sum(len(example.relevant) for example in train),
        False: sum(len(example.relevant) for example in train),
    }
    by_question = Counter((pair.example.id, pair.relevant) for pair in pairs)
    assert all(by_question[e.id, True] == by_question[e.id, False] == len(e.relevant) for e in train)


def test_every_relevant_document_is_asked_about_and_no_negative_is_relevant(train, training):
    pairs = training_pairs(train, training, 0.7, 0)
    asked = {(pair.example.id, pair.document.id) for pair in pairs if pair.relevant}
    assert asked == {(example.id, i) for example in train for i in example.relevant}
    assert all(pair.relevant == (pair.document.id in pair.example.relevant) for pair in pairs)


@pytest.mark.parametrize("hard_share", [0.0, 0.5, 1.0])
def test_train_pairs_hold_no_document_of_a_country_that_dev_or_test_ask_about(train, training, hard_share):
    unseen = {country(i) for split in ("dev", "test") for example in load_examples(split) for i in example.relevant}
    pooled = {country(document.id) for example in train for document in example.documents}
    assert unseen & pooled  # the bundled pools do hold them
    pairs = training_pairs(train, training, hard_share, 0)
    assert not unseen & {country(pair.document.id) for pair in pairs}


def test_candidates_of_train_are_its_countries_and_of_the_others_the_whole_corpus(train):
    asked = {country(i) for example in train for i in example.relevant}
    assert {country(document.id) for document in load_candidates("train")} == asked
    assert load_candidates("dev") == load_candidates("test") == list(load_corpus().values())


def test_the_seed_decides_draws_and_order(train, training):
    first, again, other = (drawn(training_pairs(train[:60], training, 0.7, seed)) for seed in (0, 0, 1))
    assert first == again
    assert first != other
    assert set(first) != set(other)
    assert [relevant for *_, relevant in first] != [True, False] * (len(first) // 2)


def test_hard_share_decides_where_negatives_come_from(train, training):
    def share(hard_share):
        negatives = [pair for pair in training_pairs(train[:150], training, hard_share, 0) if not pair.relevant]
        return np.mean([pair.document in training.confusable(pair.example, 12) for pair in negatives])

    # where a document of the relevant one's kind is wanted and no confusable one is, a random one takes its place
    assert share(0.0) < 0.15
    assert share(0.3) < share(0.7) < share(1.0)
    assert share(1.0) > 0.8


def test_random_negatives_come_from_all_of_the_corpus(train, training):
    drawn_from = {pair.document.id for pair in training_pairs(train, training, 0.0, 0) if not pair.relevant}
    assert len(drawn_from) > 0.7 * len(training.documents)


def test_a_question_whose_pool_holds_no_negative_still_gets_one():
    corpus = small_corpus()
    pairs = training_pairs([small_example(corpus, pool=("niger",))], corpus, 0.0, 0)
    assert sorted(pair.relevant for pair in pairs) == [False, True]


def test_a_question_about_the_only_document_of_a_kind_gets_a_negative():
    corpus = Corpus([document for document in small_corpus().documents if document.id != "nigeria"])
    pairs = training_pairs([small_example(corpus)], corpus, 0.0, 0)
    assert sorted(pair.relevant for pair in pairs) == [False, True]


def test_mined_negatives_come_before_bm25_neighbours():
    corpus = small_corpus()
    example = small_example(corpus, pool=("niger", "chess"))
    for seed in range(8):
        pairs = training_pairs([example], corpus, 1.0, seed, mined=True)
        # of the flag's kind there is none in the pool: then any other of the corpus will do
        assert {pair.document.id for pair in pairs if not pair.relevant} <= {"chess", "nigeria"}
    alone = small_example(corpus, pool=("niger",))
    found = {p.document.id for s in range(8) for p in training_pairs([alone], corpus, 1.0, s, mined=True)}
    assert found & {"nigeria", "people"}


def test_easy_negatives_beside_mined_ones_come_from_the_whole_corpus():
    corpus = small_corpus()
    example = small_example(corpus, pool=("niger", "chess"))
    found = {p.document.id for s in range(60) for p in training_pairs([example], corpus, 0.0, s, mined=True)}
    assert found == {document.id for document in corpus.documents}


def test_mined_negatives_of_a_large_corpus_build_no_index():
    documents = [Document(str(n), "text" if n % 2 else "image", f"Title {n}", "words") for n in range(50_000)]
    corpus = Corpus(documents)
    examples = [
        Example(f"q{n}", "Which?", tuple(documents[n : n + 20]), frozenset([documents[n].id]))
        for n in range(0, 40_000, 20)
    ]
    pairs = training_pairs(examples, corpus, 0.6, 0, mined=True)
    assert len(pairs) == 2 * len(examples)
    assert "_bm25" not in vars(corpus)
    negatives = [pair for pair in pairs if not pair.relevant]
    of_pool = np.mean([pair.document in pair.example.documents for pair in negatives])
    assert 0.5 < of_pool < 0.7
    same_kind = np.mean([p.document.kind == documents[int(p.example.id[1:])].kind for p in negatives])
    assert 0.6 < same_kind < 0.9


def test_a_draw_outside_the_source_skips_what_is_taken():
    corpus = small_corpus()
    for kind, left in (("image", "nigeria"), ("text", "bread")):
        taken = {d.id for d in corpus.documents if d.kind == kind} - {left}
        drawn_ids = {draw_negative(random.Random(s), [], corpus, kind, taken).id for s in range(30)}
        assert left in drawn_ids
        assert not drawn_ids & taken
    everything = {document.id for document in corpus.documents}
    assert draw_negative(random.Random(0), [], corpus, "text", everything) is None


def test_no_pair_comes_twice(train, training):
    for seed in range(3):
        assert max(Counter(drawn(training_pairs(train, training, 0.7, seed))).values()) == 1


def test_near_names_are_confusable(everything, asked):
    guineas = [e for e in asked if e.relevant == {"img:gn"} and "Guinea" in e.question]
    assert guineas
    for example in guineas:
        titles = [document.title for document in everything.confusable(example, 12)]
        assert {"Flag of Guinea-Bissau", "Flag of Equatorial Guinea", "Flag of Papua New Guinea"} <= set(titles)


def test_other_documents_of_a_named_country_are_confusable(training, train):
    for example in (e for e in train if e.category in ("text", "image", "image+image")):
        countries = {country(i) for i in example.relevant}
        assert countries & {country(document.id) for document in training.confusable(example, 12)}


def test_other_documents_of_a_country_that_the_question_does_not_name_are_confusable(training, train):
    unnamed = [e for e in train if e.category in ("text+image", "image+text")]
    found = [
        bool({country(i) for i in e.relevant} & {country(d.id) for d in training.confusable(e, 12)}) for e in unnamed
    ]
    assert np.mean(found) > 0.9


def test_confusable_documents_are_irrelevant_distinct_and_as_many_as_asked(everything, asked):
    for example in asked[::10]:
        for count in (0, 1, 12):
            ids = [document.id for document in everything.confusable(example, count)]
            assert len(set(ids)) == len(ids) == count
            assert not example.relevant & set(ids)
        assert len(everything.confusable(example, 10**6)) == len(everything.documents) - len(example.relevant)


def test_hardest_come_first():
    corpus = small_corpus()
    first = [document.id for document in corpus.confusable(small_example(corpus), 2)]
    assert set(first) == {"nigeria", "people"}


@pytest.mark.parametrize("size", [2, 5, 30, 100])
def test_hard_pool_has_its_size_all_that_is_relevant_and_nothing_twice(everything, asked, size):
    for example in asked[::8]:
        pool = hard_pool(example, everything, size)
        ids = [document.id for document in pool.documents]
        assert len(ids) == len(set(ids)) == size
        assert example.relevant <= set(ids)
        assert replace(pool, documents=()) == replace(example, documents=())


def test_hard_pool_is_half_confusable(everything, asked):
    for example in asked[::20]:
        ids = {document.id for document in hard_pool(example, everything, 30).documents}
        negatives = 30 - len(example.relevant)
        assert {document.id for document in everything.confusable(example, negatives // 2)} <= ids
        rest = ids - example.relevant - {d.id for d in everything.confusable(example, (negatives + 1) // 2)}
        assert len(rest) == negatives // 2


def test_hard_pool_is_drawn_once_and_for_all(everything, asked):
    rebuilt = Corpus(load_candidates("test"))
    pools, again = ([[d.id for d in hard_pool(e, c, 30).documents] for e in asked[:20]] for c in (everything, rebuilt))
    assert pools == again
    places = [ids.index(min(example.relevant)) for ids, example in zip(pools, asked, strict=False)]
    assert len(set(places)) > 5  # the relevant ones are not always in the same place
    one, two = (set(hard_pool(replace(asked[0], id=i), everything, 30).documents) for i in ("a", "b"))
    assert one != two


def test_hard_pool_of_a_small_corpus_is_all_of_it():
    corpus = small_corpus()
    pool = hard_pool(small_example(corpus), corpus, 30)
    assert sorted(d.id for d in pool.documents) == sorted(d.id for d in corpus.documents)


def test_hard_pool_smaller_than_what_is_relevant_holds_just_that(everything, asked):
    example = next(example for example in asked if len(example.relevant) == 2)
    assert {document.id for document in hard_pool(example, everything, 1).documents} == example.relevant


def test_empty_corpus_is_refused():
    with pytest.raises(LiteError, match="corpus is empty"):
        Corpus([])


def test_an_id_that_comes_twice_is_named():
    with pytest.raises(LiteError, match="'b'"):
        Corpus([Document(i, "text", i, i) for i in ("a", "b", "c", "b")])


def test_corpus_without_a_word_scores_nothing():
    assert Corpus([Document("a", "image", ""), Document("b", "image", "?")]).bm25_scores("flag").tolist() == [0, 0]


def test_questions_that_cannot_be_trained_on_are_named():
    corpus = small_corpus()
    with pytest.raises(LiteError, match="'q' has no relevant document"):
        training_pairs([replace(small_example(corpus), relevant=frozenset())], corpus, 0.5, 0)
    with pytest.raises(LiteError, match=r"'q'.*'atlantis'"):
        training_pairs([small_example(corpus, relevant="atlantis")], corpus, 0.5, 0)
    with pytest.raises(LiteError, match="no question"):
        training_pairs([], corpus, 0.5, 0)


def test_bm25_prefers_the_document_with_the_rarer_words_and_ignores_unknown_ones():
    corpus = small_corpus()
    scores = corpus.bm25_scores("Which BISHOPS and pawns, xyzzy?")
    assert scores.shape == (6,)
    assert corpus.documents[int(scores.argmax())].id == "chess"
    assert corpus.bm25_scores("xyzzy plugh").tolist() == [0] * 6
    assert corpus.bm25_scores("").tolist() == [0] * 6


def test_bm25_on_the_bundled_test_pools(everything, asked):
    judged = []
    for example in asked:
        scores = everything.bm25_scores(example.question)
        places = [everything.position[document.id] for document in example.documents]
        labels = np.array([document.id in example.relevant for document in example.documents])
        judged.append(Judged(scores[places], labels))
    figures = summarise(judged, resamples=1)
    assert figures["auc"]["value"] == pytest.approx(0.898, abs=0.005)
    assert figures["recall@5"]["value"] == pytest.approx(0.835, abs=0.005)
