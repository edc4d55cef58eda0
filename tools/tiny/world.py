"""A procedural world of made-up countries: their names, flags and documents.

The real train split holds about a hundred countries, too few to learn from: a model of a million parameters would
remember them. So it is taught on countries that do not exist. A made-up country borrows the documents of a real train
country, with name, capital and highest point replaced, and flies a flag that was drawn for it. Nothing here reads a dev
or test country.
"""

from __future__ import annotations

import random
import re
from collections import defaultdict
from dataclasses import dataclass, field, replace
from functools import cache

from lite.data.flags import country, load_corpus, load_examples
from lite.schema import Document, Example
from tools.tiny.drawing import Flag, draw_flag

TOPICS = ("capital", "geo", "background")


# ---------------------------------------------------------------------------------------------- the real train split


@cache
def train_countries() -> tuple[str, ...]:
    """Codes of the countries that train questions ask about. No dev or test question asks about any of them."""
    return tuple(sorted({country(i) for example in load_examples("train") for i in example.relevant}))


@cache
def train_documents() -> dict[str, Document]:
    """The documents of the train countries, by id."""
    allowed = set(train_countries())
    return {i: document for i, document in load_corpus().items() if country(i) in allowed}


@cache
def train_examples() -> tuple[Example, ...]:
    """The train questions. Their pools are not used: they hold documents of dev and test countries too."""
    return tuple(load_examples("train"))


@dataclass(frozen=True)
class Facts:
    """The names in the documents of one real country."""

    name: str
    capital: str
    peak: str | None


@cache
def train_facts() -> dict[str, Facts]:
    """Name, capital and highest point of every train country, read from its documents."""
    documents = train_documents()
    facts = {}
    for code in train_countries():
        name = documents[f"img:{code}"].title.removeprefix("Flag of ")
        capital = re.match(r"The capital of .*? is (.*?)\. (?:Etym|Gov)", documents[f"txt:{code}:capital"].text)
        peak = re.search(r"Highest point: ([A-Z][^\d;(]+?) [\d,]+(?:\.\d+)? m\b", documents[f"txt:{code}:geo"].text)
        if capital is None:
            raise ValueError(f"No capital found in txt:{code}:capital")
        facts[code] = Facts(name, capital.group(1), peak.group(1) if peak else None)
    return facts


# ------------------------------------------------------------------------------------------------------ made-up names

ONSETS = [*"bcdfghjklmnpqrstvwxyz", "ch", "sh", "th", "br", "kr", "st"]
RIMES = [*"aeiou", "an", "el", "or", "ia", "us", "én", "ba"]
ACCENTED = "áãâăçíóôöúüșțčšñ"
NAME_FORMS = [
    "Republic of the {}",
    "{} and {}",
    "Saint {}",
    "North {}",
    "South {}",
    "New {}",
    "United {}",
    "{} Islands",
    "{} City",
    "Port {}",
    "San {}",
    "Mount {}",
    "{} {}",
    "{}-{}",
    "{} Peak",
    "Pic de {}",
]


class NameMaker:
    """Draws names that sound like those of the train countries, their capitals and peaks."""

    def __init__(self) -> None:
        self.looping_share = 0.0
        self.accented_share = 0.0
        names = [n for f in train_facts().values() for n in (f.name, f.capital, f.peak) if n]
        self.words = [word for name in names for word in name.split() if len(word) > 3]
        self.following: dict[str, list[str]] = defaultdict(list)
        for word in self.words:
            letters = f"^^{word.lower()}$"
            for i in range(len(letters) - 2):
                self.following[letters[i : i + 2]].append(letters[i + 2])

    def name(self, rng: random.Random) -> str:
        """One word, or a form such as `Port {}` around one or two words; or, of `looping_share`, see `looping`.

        Of `accented_share`, with a letter that takes two tokens, as in `Brasília`.
        """
        if self.accented_share and rng.random() < self.accented_share:
            name = self._plain(rng)
            place = rng.randrange(1, len(name))
            return name[:place] + rng.choice(ACCENTED) + name[place + 1 :] if name[place].isalpha() else name
        return self._plain(rng)

    def _plain(self, rng: random.Random) -> str:
        if self.looping_share and rng.random() < self.looping_share:
            return self.looping(rng)
        if rng.random() < 0.6:
            return self.word(rng)
        form = rng.choice(NAME_FORMS)
        return form.format(*(self.word(rng) for _ in range(form.count("{}"))))

    def word(self, rng: random.Random) -> str:
        """A word from a chain over letter pairs, from random syllables, or borrowed from a train country's name."""
        kind = rng.random()
        if kind < 0.45:
            return self._chained(rng).capitalize()
        if kind < 0.75:
            return "".join(rng.choice(ONSETS) + rng.choice(RIMES) for _ in range(rng.randint(2, 4))).capitalize()
        return rng.choice(self.words)

    def looping(self, rng: random.Random) -> str:
        """One or two words of few syllables that come again, as in `Antananarivo` or `Addis Ababa`."""
        few = [rng.choice(ONSETS) + rng.choice(RIMES) for _ in range(rng.randint(2, 3))]
        words = ("".join(rng.choices(few, k=rng.randint(2, 5))) for _ in range(rng.choice([1, 1, 2])))
        return " ".join(words).title()

    def _chained(self, rng: random.Random) -> str:
        letters = "^^"
        while len(letters) < 14:
            letter = rng.choice(self.following[letters[-2:]])
            if letter != "$":
                letters += letter
            elif len(letters) > 5:
                break
            else:
                letters = "^^"
        return letters[2:]


# -------------------------------------------------------------------------------------------------- made-up countries


@dataclass
class Country:
    """A made-up country.

    Args:
        documents: By topic: `image`, `capital`, `geo`, `background` (the last two texts may lack, as in the corpus).
    """

    name: str
    capital: str
    peak: str | None
    flag: Flag
    documents: dict[str, Document] = field(default_factory=dict)

    def renamed(self, name: str) -> Country:
        """The same country and documents under another name."""
        documents = {
            topic: replace(d, title=d.title.replace(self.name, name), text=d.text.replace(self.name, name))
            for topic, d in self.documents.items()
        }
        return Country(name, self.capital, self.peak, self.flag, documents)


class World:
    """Draws made-up countries. Their flags come from a pool, since drawing and resizing one costs a millisecond."""

    def __init__(self, rng: random.Random, n_flags: int) -> None:
        self.rng = rng
        self.names = NameMaker()
        self.draw_heights = False
        self.compared = 0.15
        self.flags = [draw_flag(rng) for _ in range(n_flags)]

    def country(self) -> Country:
        """A new country on the documents of a random train country."""
        rng = self.rng
        code = rng.choice(train_countries())
        facts = train_facts()[code]
        name = self.names.name(rng)
        capital = self.names.name(rng) if rng.random() < 0.93 else name  # some are city states
        made = Country(name, capital, self.names.name(rng) if facts.peak else None, rng.choice(self.flags))
        made.documents["image"] = Document(f"img:{name}", "image", f"Flag of {name}", image=made.flag.open)
        for topic in TOPICS:
            source = train_documents().get(f"txt:{code}:{topic}")
            if source is None:
                continue
            text = source.text
            if topic == "capital":  # the first sentence is written anew: a name may be part of the capital's
                text = f"The capital of {name} is {capital}. " + text.split(". ", 1)[1]
            text = text.replace(facts.name, name).replace(facts.capital, capital)
            if facts.peak and made.peak:
                text = text.replace(facts.peak, made.peak)
                if self.draw_heights:
                    peak = re.compile(rf"({re.escape(made.peak)}) [\d,.]+ m\b")
                    text = peak.sub(lambda match: f"{match[1]} {self.height()} m", text)
            made.documents[topic] = Document(
                f"txt:{name}:{topic}", "text", source.title.replace(facts.name, name), text
            )
        return made

    def height(self) -> str:
        """As a number such as `4,884`, in which digits often come twice."""
        few = self.rng.sample(range(10), self.rng.randint(2, 6))
        digits = "".join(str(self.rng.choice(few)) for _ in range(3))
        thousands = self.rng.randint(0, 8)
        return f"{thousands},{digits}" if thousands else str(int(digits) + 1)

    def near_name(self, name: str) -> str:
        """Another name that shares a word or its first letters with `name`."""
        rng, words = self.rng, name.split()
        return rng.choice(
            [
                f"{self.names.word(rng)} {words[0]}",
                f"{words[0]} {self.names.word(rng)}",
                words[-1][:3] + self.names.word(rng).lower(),
            ]
        )
