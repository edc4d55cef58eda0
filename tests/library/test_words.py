"""Which texts a question finds: by shared terms, in many languages, and what hard negatives are told apart by."""

from __future__ import annotations

import re
import time
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lite.data import flags
from lite.library.words import query_terms, terms, words

FOUND = [  # query, text: other forms of a word, other ways to write it
    ("pump", "The pumps were serviced."),
    ("battery", "Batteries must be replaced."),
    ("Sicherheitsventil", "Prüfung der Sicherheitsventile"),
    ("Haus", "Zwei Häuser"),
    ("Prüfgerät", "Pruefgeraete"),
    ("Strasse", "Am Straßenrand die Straße"),
    ("journal", "Les journaux du matin"),
    ("válvula", "las válvulas de seguridad"),
    ("reunión", "Reuniones del comité"),
    ("filtro", "i filtri dell'olio"),
    ("contrato", "os contratos assinados"),
    ("huis", "twee huizen"),
    ("pump", "pumparna och pumpar"),
    ("pompa", "Wymiana pompy"),
    ("zawór", "dwa zaworów"),
    ("čerpadlo", "výměna čerpadla"),
    ("szűrő", "a szűrőt ki kell cserélni"),
    ("filtre", "filtreyi değiştirin"),
    ("pumppu", "vaihda pumput"),
    ("насос", "Насосы проверены"),
    ("насос", "заміна насосів"),  # Ukrainian, which has no stemmer
    ("елка", "новогодняя ёлка"),
    ("φίλτρο", "Αλλαγή φίλτρων και ΦΊΛΤΡΑ"),
    ("مضخة", "ضغط المضخة"),
    ("المرشح", "تَغْيِيرُ المُرَشِّحِ"),
    ("كتاب", "کتاب"),  # the same letters as other keyboards write them
    ("מסנן", "יש להחליף את המסנן"),
    ("फिल्टर", "फिल्टरों को बदलें"),
    ("水泵", "水泵的额定压力是三巴"),
    ("冷却水はいつ交換しますか", "この機械の冷却水は毎週交換してください"),
    ("フィルター", "ﾌｨﾙﾀｰを交換"),
    ("필터", "필터를 교체하세요"),
    ("วาล์ว", "ตรวจสอบวาล์วนิรภัย"),
    ("ERP2000", "型号ERP2000的审批流程"),
    ("ERP 2000", "型号ERP2000的审批流程"),
    ("crème", unicodedata.normalize("NFD", "café crème")),
    ("creme", "café crème"),
    ("학점인정", unicodedata.normalize("NFD", "학점인정 신청서")),
    ("IT", "analyses by the IT department"),
    ("The Who", "The Who played here."),
    ("AX-4711/B", "Part AX4711B"),
    ("ax 4711 b", "Part no. AX-4711/B."),
    ("35 Nm", "Torque 35Nm"),
    ("35 newton metres", "Torque 35Nm"),
    ("square metres", "a flat of 120 m²"),
    ("square metres", "120㎡"),
    ("50 percent", "rise by 50%"),
    ("degrees Celsius", "at 21 ℃"),
    ("m²", "120 square meters"),
    ("quadratmeter", "120 m2"),
    ("3.5", "Druck 3,5 bar"),
    ("1200", "costs 1,200 a year"),
    ("1200.50", "1.200,50 €"),
    ("Don’t", "don't"),
    ("C++", "Use C++ here"),
    ("parse config", "def parseConfig():"),
    ("read file", "read_file(path)"),
    ("9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08", "hash 9F86D081884C7D659A2FEAA0C55AD015A3BF"
     "4F1B2B0B822CD15D6C15B0F00A08."),
    ("Donaudampfschifffahrtselektrizitätengesellschaft", "Donaudampfschifffahrtselektrizitätengesellschaft lädt ein"),
    ("٢٠٢٤", "in 2024"),
    ("can\u00adcel", "cancel"),
]  # fmt: skip


@pytest.mark.parametrize(("query", "text"), FOUND)
def test_a_query_finds_other_forms_of_its_words(query: str, text: str) -> None:
    assert set(query_terms(query)) & set(terms(text))


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("pump", "The valve is red."),
        ("35 bar", "3.5 bar at 20 degrees"),
        ("What is the price of the valve?", "The pump is in the hall of the house."),
        ("安全", "水泵"),
        ("C++", "C#"),
    ],
)
def test_a_query_does_not_find_what_shares_no_word(query: str, text: str) -> None:
    shared = set(query_terms(query)) & set(terms(text))
    assert not shared - {"35", "bar", "c"}
    assert "35bar" not in terms(text)


def test_an_exact_word_shares_more_than_its_stem() -> None:
    query = set(query_terms("batteries"))
    assert len(query & set(terms("batteries"))) > len(query & set(terms("battery"))) > 0
    assert "c++" in terms("Use C++.")


def test_function_words_do_not_count_beside_others() -> None:
    assert query_terms("What is the pressure of the pump?") == query_terms("pressure pump?")
    assert "it" in query_terms("Who leads the IT department?")
    assert "it" not in query_terms("Where is it kept?")
    assert query_terms("the of and")
    assert query_terms("🙂 !") == []


def test_words_of_the_bundled_corpus_are_those_of_every_trained_adapter() -> None:
    """Hard negatives hang on them: the same draws, the same adapters."""
    texts = [f"{document.title} {document.text}" for document in flags.load_corpus().values()]
    for split in flags.SPLITS:
        texts += [example.question for example in flags.load_examples(split)]
    assert len(texts) > 1900
    for text in texts:
        assert words(text) == re.findall(r"\w+", text.lower())


def test_words_of_scripts_without_spaces_are_short_runs() -> None:
    assert words("水泵 ok") == ["水", "泵", "水泵", "ok"]
    assert words("泵") == ["泵"]
    assert set(words("水泵的压力")) & set(words("更换水泵"))


@given(st.text(max_size=60))
def test_any_text_has_terms_without_spaces(text: str) -> None:
    found = terms(text)
    assert all(term and term.split() == [term] for term in found)
    assert terms(unicodedata.normalize("NFD", text)) == terms(unicodedata.normalize("NFC", text))
    assert set(query_terms(text)) <= set(found) | set(query_terms(text.lower()))
    for word in words(text):
        assert word.split() == [word]


@given(st.text(alphabet=st.characters(categories=["Lu", "Ll", "Lo", "Nd"]), min_size=1, max_size=12))
def test_every_word_finds_itself_in_a_text(word: str) -> None:
    assert set(query_terms(word)) & set(terms(f"before {word} after"))


@pytest.mark.parametrize("word", ["é" * 20_000, "a1" * 10_000, "α" * 20_000 + "#a", "а" * 20_000])
def test_a_word_without_end_takes_linear_time(word):
    """A fraction of a second; quadratic time was five."""
    before = time.process_time()
    terms(word)
    assert time.process_time() - before < 2
