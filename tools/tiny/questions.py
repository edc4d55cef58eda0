"""Questions on made-up countries that their documents answer: what the embedded model learns to answer on."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from lite.schema import Document, Example
from tools.tiny.drawing import BANDS, SYMBOLS, Flag
from tools.tiny.world import Country, World

DESCRIBED = 0.15  # share of the questions on two documents that describe the flag of a country
SHOWN = 0.55  # share of the yes/no questions that ask for a symbol which the flag shows, where it shows one


@dataclass(frozen=True)
class Asked:
    """A question, the documents that its answer rests on, and the answer.

    Args:
        others: Further documents of the countries that it speaks of.
        captions: Descriptions of the flags among `relevant`, by document id.
    """

    question: str
    relevant: tuple[Document, ...]
    answer: str
    others: tuple[Document, ...] = ()
    captions: dict[str, str] = field(default_factory=dict)

    def example(self) -> Example:
        """As the chains of `lite.train.chains` want it."""
        ids = frozenset(document.id for document in self.relevant)
        return Example("", self.question, self.relevant, ids, (self.answer,))


def one_hop(world: World, this: Country) -> Asked:
    """A question that one document of `this` answers, in the words of the corpus."""
    rng = world.rng
    place = f"the {this.name}" if rng.random() < 0.1 else this.name
    draw = rng.random()
    if draw < 0.3:
        return _asked(this, f"What is the capital of {place}?", "capital", this.capital)
    if draw < 0.48 and this.peak:
        return _asked(this, f"What is the highest point in {place}?", "geo", this.peak)
    question, answer = flag_question(rng, this.flag, place)
    return _asked(this, question, "image", answer)


def flag_question(rng: random.Random, flag: Flag, place: str) -> tuple[str, str]:
    """A question on the flag of `place`, and its answer: a colour, an orientation, yes or no."""
    draw = rng.random()
    bands = BANDS.get((flag.orientation, len(flag.colors)))
    if bands and draw < 0.4:
        i = rng.randrange(len(bands))
        return f"What color is the {bands[i]} band of the flag of {place}?", flag.colors[i]
    if bands and draw < 0.6:
        return f"Are the bands on the flag of {place} horizontal or vertical?", flag.orientation
    if flag.symbol and rng.random() < SHOWN:
        return f"Does the flag of {place} show {SYMBOLS[flag.symbol]}?", "yes"
    absent = rng.choice([symbol for symbol in SYMBOLS if symbol != flag.symbol])
    return f"Does the flag of {place} show {SYMBOLS[absent]}?", "no"


def two_hops(world: World, this: Country) -> Asked:
    """A question that takes two documents: mostly the flag of a country that is named by its capital or peak, less
    often two flags to compare, or the capital of a country whose flag is described."""
    rng, draw = world.rng, world.rng.random()
    if draw < world.compared and this.flag.symbol:
        other = world.country()
        while other.flag.symbol == this.flag.symbol:
            other = world.country()
        two = [this, other] if rng.random() < 0.5 else [other, this]
        asked = f"Which flag shows {SYMBOLS[this.flag.symbol]}: the flag of {two[0].name} or the flag of {two[1].name}?"
        images = tuple(country.documents["image"] for country in two)
        return Asked(asked, images, this.name, captions={c.documents["image"].id: c.flag.description() for c in two})
    if draw < world.compared + DESCRIBED:
        asked = f"What is the capital of the country whose flag is described as: {in_words(this.flag)}?"
        return _asked(this, asked, "image capital", this.capital)
    if this.peak and rng.random() < 0.35:
        place, topic = f"the country whose highest point is {this.peak}", "geo"
    else:
        place, topic = f"the country whose capital is {this.capital}", "capital"
    asked, answer = flag_question(rng, this.flag, place)
    return _asked(this, asked, f"{topic} image", answer)


def in_words(flag: Flag) -> str:
    """For example `three equal horizontal bands of red (top), white, and blue, with a star`."""
    first, *rest = flag.colors
    if not rest:
        words = first
    else:
        side = "top" if flag.orientation == "horizontal" else "left side"
        middle = "," if len(rest) > 1 else ""
        number = {2: "two", 3: "three"}[len(flag.colors)]
        listed = ", ".join([f"{first} ({side})", *rest[:-1]])
        words = f"{number} equal {flag.orientation} bands of {listed}{middle} and {rest[-1]}"
    return f"{words}, with {SYMBOLS[flag.symbol]}" if flag.symbol else words


def _asked(this: Country, question: str, topics: str, answer: str) -> Asked:
    wanted = topics.split()
    others = tuple(document for topic, document in this.documents.items() if topic not in wanted)
    captions = {this.documents["image"].id: this.flag.description()}
    return Asked(question, tuple(this.documents[topic] for topic in wanted), answer, others, captions)
