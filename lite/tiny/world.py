"""A procedural world of made-up countries: their names, flags and documents.

The real train split holds about a hundred countries, too few to learn from: a model of a million parameters would
remember them. So it is taught on countries that do not exist. A made-up country borrows the documents of a real train
country, with name, capital and highest point replaced, and flies a flag that was drawn for it. Nothing here reads a dev
or test country.
"""

from __future__ import annotations

import math
import random
import re
from collections import defaultdict
from dataclasses import dataclass, field, replace
from functools import cache

from PIL import Image, ImageDraw

from lite.datasets.flags import country, load_corpus, load_examples
from lite.schema import Document, Example

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
        names = [n for f in train_facts().values() for n in (f.name, f.capital, f.peak) if n]
        self.words = [word for name in names for word in name.split() if len(word) > 3]
        self.following: dict[str, list[str]] = defaultdict(list)
        for word in self.words:
            letters = f"^^{word.lower()}$"
            for i in range(len(letters) - 2):
                self.following[letters[i : i + 2]].append(letters[i + 2])

    def name(self, rng: random.Random) -> str:
        """One word, or a form such as `Port {}` around one or two words."""
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


# ------------------------------------------------------------------------------------------------------ made-up flags

SHADES = {
    "red": [(206, 17, 38), (237, 28, 36), (170, 21, 27)],
    "white": [(255, 255, 255)],
    "blue": [(0, 56, 168), (0, 114, 198), (117, 178, 221), (0, 35, 102)],
    "green": [(0, 122, 61), (0, 158, 73), (0, 98, 51), (80, 180, 60)],
    "yellow": [(252, 209, 22), (255, 224, 0), (245, 200, 60)],
    "black": [(0, 0, 0), (25, 25, 25)],
    "orange": [(255, 136, 30), (240, 120, 0)],
}
# How often real flags use each colour, roughly.
FREQUENCY = {"red": 5, "white": 5, "green": 4, "blue": 4, "yellow": 3, "black": 2, "orange": 1}
BANDS = {
    ("horizontal", 3): ("top", "middle", "bottom"),
    ("horizontal", 2): ("top", "bottom"),
    ("vertical", 3): ("left", "middle", "right"),
    ("vertical", 2): ("left", "right"),
}
SYMBOLS = {"cross": "a cross", "crescent": "a crescent", "sun": "a sun", "star": "a star", "triangle": "a triangle"}
FLAG_WIDTH, FLAG_HEIGHT = 160, 120  # the real flags' 4:3, at half their size


@dataclass(frozen=True, eq=False)
class Flag:
    """A drawn flag and what it shows.

    Args:
        image: 160x120 RGB.
        orientation: `horizontal` or `vertical`; `plain` for a field without bands.
        colors: Of the bands, from the top or from the left.
        symbol: The emblem on it, a key of `SYMBOLS`, or None.
    """

    image: Image.Image
    orientation: str
    colors: tuple[str, ...]
    symbol: str | None

    def open(self) -> Image.Image:
        """The image, as a `Document` wants to open it."""
        return self.image

    def description(self) -> str:
        """For example `horizontal: red, white, blue; star`."""
        bands = f"{self.orientation}: {', '.join(self.colors)}"
        return f"{bands}; {self.symbol}" if self.symbol else bands


def draw_flag(rng: random.Random) -> Flag:
    """One to three bands of differing colours, half of the time with an emblem on them.

    Horizontal bands may have a stripe or a canton at the hoist, which a description leaves out.
    """
    n_bands = rng.choice([3, 3, 3, 2, 2, 1])
    orientation = rng.choice(["horizontal", "vertical"])
    colors: list[str] = []
    while len(colors) < n_bands:
        [color] = rng.choices(list(FREQUENCY), list(FREQUENCY.values()))
        if not colors or colors[-1] != color:
            colors.append(color)
    image = Image.new("RGB", (FLAG_WIDTH, FLAG_HEIGHT))
    draw = ImageDraw.Draw(image)
    for i, color in enumerate(colors):
        start, end = i / n_bands, (i + 1) / n_bands
        if orientation == "horizontal":
            box = (0, start * FLAG_HEIGHT, FLAG_WIDTH, end * FLAG_HEIGHT)
        else:
            box = (start * FLAG_WIDTH, 0, end * FLAG_WIDTH, FLAG_HEIGHT)
        draw.rectangle(box, fill=_shade(color, rng))
    if n_bands > 1 and orientation == "horizontal" and rng.random() < 0.3:
        _draw_at_hoist(draw, _shade(rng.choice([c for c in SHADES if c not in colors]), rng), rng)
    symbol = None
    emblem = rng.random()
    if emblem < 0.55:
        symbol = rng.choice(["cross", "cross", "crescent", "crescent", "sun", "sun", "star", "triangle"])
        _draw_symbol(symbol, image, _shade(rng.choice([c for c in SHADES if c not in colors]), rng), rng)
    elif emblem < 0.65:  # a disc that no question asks about
        _draw_disc(draw, FLAG_WIDTH / 2, FLAG_HEIGHT / 2, rng.uniform(0.1, 0.2) * FLAG_HEIGHT, _shade("white", rng))
    return Flag(image, orientation if n_bands > 1 else "plain", tuple(colors), symbol)


def _shade(color: str, rng: random.Random) -> tuple[int, int, int]:
    red, green, blue = (max(0, min(255, value + rng.randint(-12, 12))) for value in rng.choice(SHADES[color]))
    return red, green, blue


def _draw_disc(draw: ImageDraw.ImageDraw, x: float, y: float, radius: float, fill: tuple[int, ...]) -> None:
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=fill)


def _draw_star(draw: ImageDraw.ImageDraw, x: float, y: float, radius: float, fill: tuple[int, ...]) -> None:
    points = []
    for i in range(10):
        distance = radius if i % 2 == 0 else radius * 0.4
        points.append((x + distance * math.sin(math.pi * i / 5), y - distance * math.cos(math.pi * i / 5)))
    draw.polygon(points, fill=fill)


def _draw_at_hoist(draw: ImageDraw.ImageDraw, fill: tuple[int, ...], rng: random.Random) -> None:
    """An upright stripe, or a canton in the upper corner, over the left end of horizontal bands."""
    bottom = rng.choice([FLAG_HEIGHT, FLAG_HEIGHT // 2])
    draw.rectangle((0, 0, rng.uniform(0.25, 0.42) * FLAG_WIDTH, bottom), fill=fill)


def _draw_symbol(symbol: str, image: Image.Image, fill: tuple[int, int, int], rng: random.Random) -> None:
    draw = ImageDraw.Draw(image)
    x = rng.choice([0.25, 0.5, 0.5]) * FLAG_WIDTH
    y = rng.choice([0.3, 0.5, 0.5, 0.5]) * FLAG_HEIGHT
    radius = rng.uniform(0.14, 0.3) * FLAG_HEIGHT
    if symbol == "cross":
        half = rng.uniform(0.06, 0.12) * FLAG_HEIGHT
        if rng.random() < 0.6:  # from edge to edge, as the Nordic ones
            x, y = rng.choice([0.36, 0.5]) * FLAG_WIDTH, FLAG_HEIGHT / 2
            draw.rectangle((0, y - half, FLAG_WIDTH, y + half), fill=fill)
            draw.rectangle((x - half, 0, x + half, FLAG_HEIGHT), fill=fill)
        else:
            draw.rectangle((x - radius, y - half, x + radius, y + half), fill=fill)
            draw.rectangle((x - half, y - radius, x + half, y + radius), fill=fill)
    elif symbol == "crescent":
        background = image.getpixel((int(x + radius * 0.4), int(y)))
        _draw_disc(draw, x, y, radius, fill)
        _draw_disc(draw, x + radius * 0.35, y, radius * 0.8, background)
        if rng.random() < 0.6:
            _draw_star(draw, x + radius * 0.6, y, radius * 0.4, fill)
    elif symbol == "sun":
        _draw_disc(draw, x, y, radius * 0.55, fill)
        for i in range(12):
            angle = 2 * math.pi * i / 12
            end = (x + radius * math.cos(angle), y + radius * math.sin(angle))
            draw.line((x, y, *end), fill=fill, width=max(2, int(radius * 0.12)))
    elif symbol == "star":
        _draw_star(draw, x, y, radius, fill)
    else:
        tip = (FLAG_WIDTH * rng.uniform(0.3, 0.5), FLAG_HEIGHT / 2)
        draw.polygon([(0, 0), (0, FLAG_HEIGHT), tip], fill=fill)


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
            made.documents[topic] = Document(
                f"txt:{name}:{topic}", "text", source.title.replace(facts.name, name), text
            )
        return made

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
