"""Words to search by, in any language.

`words` are what a reader sees as words; BM25 over a data set compares them. `terms` are everything under which a text
is found in a library: its words, their stems, the parts of codes, numbers together with their units. Text and question
go through the same function, and two forms of a word match where they share a term. So no language has to be guessed:
a word is stemmed by the Snowball stemmers of all languages of its script, which agree on most words (three terms a word
on average), and an exact match shares more terms than one of the stem alone.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from functools import cache, lru_cache
from itertools import chain, compress

import regex

VERSION = 1  # of `terms`: a library made with another one is brought up to date by the next run of `lite index`

# Written without spaces: found by their letters and pairs of letters, or by pairs and triples of the smaller ones.
PAIRS = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Hangul}\p{Bopomofo}ー々〆〇"
TRIPLES = r"\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}\p{Javanese}\p{Tai_Tham}\p{New_Tai_Lue}"
WORD = regex.compile(
    rf"(?P<pairs>[{PAIRS}]+)|(?P<triples>[{TRIPLES}]+)|(?P<word>[[\w\p{{M}}]--[{PAIRS}{TRIPLES}]]+)", regex.V1
)
STEMMERS = {
    "LATIN": "english german french spanish italian portuguese dutch swedish danish norwegian finnish hungarian "
    "romanian turkish polish czech catalan indonesian estonian lithuanian",
    "CYRILLIC": "russian",
    "ARABIC": "arabic persian",
    "GREEK": "greek",
    "DEVANAGARI": "hindi nepali",
    "ARMENIAN": "armenian",
    "TAMIL": "tamil",
}
BARE = {"LATIN", "CYRILLIC", "GREEK", "ARABIC", "HEBREW"}  # scripts whose words are also written without their marks
LETTERS = str.maketrans(
    # What decomposes into no plain letter and a mark, and the Arabic letters that keyboards of other languages have.
    {"ß": "ss", "æ": "ae", "œ": "oe", "ø": "o", "đ": "d", "ð": "d", "þ": "th", "ł": "l", "ı": "i", "ħ": "h",
     "ي": "ی", "ى": "ی", "ك": "ک", "أ": "ا", "إ": "ا", "آ": "ا", "ة": "ه"}
)  # fmt: skip
IGNORED = regex.compile(r"[\u00ad\u0640\u200c\u200d\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff]")
DASHES = regex.compile(r"[\u2010-\u2015\u2212]")
NUMBER = regex.compile(r"\d+(?:[.,]\d+)*")
THOUSANDS = regex.compile(r"(?<![\d.,])(\d{1,3})((?:[ ']\d{3})+)(?!\d)")  # of narrow spaces and apostrophes, too
# Of a stretch without spaces: `c++`, `.net`, `-5` and `°c` are more than their letters.
# A run of letters is tried from its beginning alone (\G: or from where the match before it ended), in linear time.
SIGNED = regex.compile(
    r"(?:\G|(?<!\w))\w++(?:\+\+|#)(?!\w)|(?<![\w.])\.\w+|(?<![\w)])-\d[\d.,]*|°[cf]?(?!\w)|[%‰€$£¥§]"
)
PARTS = regex.compile(r"\p{Ll}+|\p{Lu}\p{Ll}+|\p{Lu}+(?!\p{Ll})|[\p{Lo}\p{Lt}\p{Lm}\p{M}]+|\d+")
GLUED_UNIT = regex.compile(r"^\d+(\p{L}{1,2}\d)$")  # of `120m²`
MOST_PARTS = 6  # of one word; beyond, it is a hash, of which no part means anything
SHORT = 4  # letters of a unit: what follows a number may be one

UNITS = {
    name.strip(): symbol
    for symbol, names in {
        "%": "percent, per cent, prozent, pour cent, por ciento, por cento, per cento, procent, процент, процентов",
        "°c": "degree celsius, degrees celsius, degree centigrade, degrees centigrade, grad celsius, degres celsius, "
        "grados celsius, gradi celsius, graus celsius, градусов цельсия",
        "°f": "degree fahrenheit, degrees fahrenheit, grad fahrenheit",
        "€": "euro, euros, eur, евро", "$": "dollar, dollars, usd", "£": "gbp, pound sterling, pounds sterling",
        "¥": "yen, jpy, yuan, cny",
        "mm": "millimetre, millimetres, millimeter, millimeters, millimetern, milimetro, milimetros, millimetri",
        "cm": "centimetre, centimetres, centimeter, centimeters, zentimeter, zentimetern, centimetro, centimetros, "
        "centimetri",
        "m": "metre, metres, meter, meters, metern, metro, metros, metri, метр, метра, метров",
        "km": "kilometre, kilometres, kilometer, kilometers, kilometern, kilometro, kilometros, chilometri, километров",
        "m2": "square metre, square metres, square meter, square meters, sq m, sqm, quadratmeter, quadratmetern, qm, "
        "metre carre, metres carres, metro cuadrado, metros cuadrados, metro quadrato, metri quadrati, "
        "metro quadrado, metros quadrados, vierkante meter, кв м, квадратных метров, квадратный метр",
        "m3": "cubic metre, cubic metres, cubic meter, cubic meters, kubikmeter, kubikmetern, metre cube, "
        "metres cubes, metro cubico, metros cubicos, metri cubi, kubieke meter, куб м, кубических метров",
        "km2": "square kilometre, square kilometres, square kilometer, square kilometers, quadratkilometer, "
        "quadratkilometern, kilometre carre, kilometres carres, kilometros cuadrados, sq km",
        "kmh": "kilometre per hour, kilometres per hour, kilometer per hour, kilometers per hour, kph, "
        "kilometer pro stunde, stundenkilometer, kilometres par heure, kilometros por hora",
        "kg": "kilogram, kilograms, kilogramme, kilogrammes, kilogramm, kilo, kilos, kilogramo, kilogramos, "
        "chilogrammi, килограмм, килограммов",
        "g": "gram, grams, gramme, grammes, gramm, gramo, gramos, grammi, граммов",
        "t": "tonne, tonnes, tonnen, tonelada, toneladas, tonnellate, тонн",
        "l": "litre, litres, liter, liters, litern, litro, litros, litri, литр, литров",
        "ml": "millilitre, millilitres, milliliter, milliliters, mililitro, mililitros",
        "v": "volt, volts, voltios", "a": "ampere, amperes, amp, amps, amperios", "w": "watt, watts, vatios",
        "kw": "kilowatt, kilowatts", "kwh": "kilowatt hour, kilowatt hours, kilowattstunde, kilowattstunden",
        "nm": "newton metre, newton metres, newton meter, newton meters, newtonmeter, newtonmetern, newton metro",
        "hz": "hertz", "pa": "pascal", "ω": "ohm, ohms", 
        "h": "hour, hours, stunde, stunden, heure, heures, hora, horas",
        "min": "minute, minutes, minuten, minuto, minutos, minuti", "in": "inch, inches", "ft": "foot, feet",
    }.items()
    for name in names.split(",")
}  # fmt: skip
FIRST_OF_UNIT = {name.split()[0] for name in UNITS}
LONGEST_UNIT = 3  # words
TOKEN = regex.compile(r"[%°€$£¥]\p{L}?|\d[\d.,]*|[\w\p{M}]+")
OPENING, CLOSING = "\"'([", "\"'),.:;!?]"  # what stands around a word without being of it
COMMON = set(
    "a an and are as at be been but by can could did do does for from had has have he her his how i if in into is it "
    "its me my no not of on or our she should so such than that the their them then there these they this those to "
    "us was we were what when where which who whom whose why will with would you your".split()
)


def words(text: str) -> list[str]:
    """Lower-cased words; of languages written without spaces, short runs of letters.

    Composed and decomposed accents, and letters of full and half width, are the same.
    """
    return [word for kind, word in _split(_plain(text).lower())]


def terms(text: str) -> list[str]:
    """Everything under which a text is found: words without accents, stems, parts of codes, quantities.

    None holds a space. A term comes as often as the text has it.
    """
    plain = THOUSANDS.sub(lambda match: match[0].replace(" ", "").replace("'", ""), _plain(text))
    if not (stretches := plain.split()):
        return []
    found, tokens, begin = (list(chain.from_iterable(each)) for each in zip(*map(_stretch, stretches), strict=True))
    return found + _quantities(tokens, compress(range(len(tokens)), begin))


def query_terms(query: str) -> list[str]:
    """What a question is searched by: its terms, each once, without English function words where it has other words.

    `IT` in capitals is no function word, unless all of the question is in capitals.
    """
    stretches = query.split()
    shouted = not any(c.islower() for c in query)
    kept = [s for s in stretches if regex.sub(r"^\W+|\W+$", "", s.lower()) not in COMMON or _acronym(s, shouted)]
    return list(dict.fromkeys(terms(" ".join(kept)) or terms(query)))


@lru_cache(maxsize=1 << 17)
def bare(word: str) -> str:
    """Without case, and without marks in scripts that are also written without them: `Crème` is `creme`."""
    word = unicodedata.normalize("NFKC", word).casefold()
    if word.isascii():
        return word
    if _script(word) in BARE:
        word = "".join(c for c in unicodedata.normalize("NFD", word) if not unicodedata.combining(c))
    return word.translate(LETTERS)


# ------------------------------------------------------------------------------------------------------------- helpers


def _acronym(stretch: str, shouted: bool) -> bool:
    letters = [c for c in stretch if c.isalpha()]
    return not shouted and len(letters) > 1 and all(c.isupper() for c in letters)


def _plain(text: str) -> str:
    """In one form of Unicode, without marks that no reader sees, digits and dashes as in ASCII."""
    if text.isascii():
        return text
    text = DASHES.sub("-", IGNORED.sub("", unicodedata.normalize("NFKC", text).replace("\u200b", " ")))
    text = text.replace("’", "'")
    return regex.sub(r"[^\P{Nd}0-9]", lambda match: str(unicodedata.decimal(match[0])), text)


def _split(text: str) -> list[tuple[str, str]]:
    """(kind, word) of each word or, of scripts without spaces, of each short run of letters."""
    found = []
    for match in WORD.finditer(text):
        kind, run = match.lastgroup, match[0]
        sizes = {"pairs": (1, 2), "triples": (2, 3)}.get(kind, ())
        if sizes and len(run) > sizes[0]:
            found += [(kind, run[i : i + size]) for size in sizes for i in range(len(run) - size + 1)]
        else:
            found.append((kind, run))
    return found


@lru_cache(maxsize=1 << 17)
def _stretch(stretch: str) -> tuple[tuple[str, ...], tuple[str, ...], tuple[bool, ...]]:
    """Of what stands between two spaces (`35Nm`, `AX-4711/B`, `l'eau`): its terms, its words and numbers, and at which
    of these a quantity may begin."""
    core = stretch.lstrip(OPENING).rstrip(CLOSING)
    if core.isascii() and core.isalpha() and (core.islower() or core.istitle() or core.isupper()):
        word = core.lower()  # as most of a text is: what follows would find no more
        return _forms(word), (word,), (word in FIRST_OF_UNIT,)
    tokens = tuple(map(bare, TOKEN.findall(stretch)))
    return _stretch_terms(stretch), tokens, tuple(t in FIRST_OF_UNIT or t[:1].isdigit() for t in tokens)


def _stretch_terms(stretch: str) -> tuple[str, ...]:
    low = stretch.casefold()
    found = SIGNED.findall(low)
    pieces: list[str] = []
    for match in WORD.finditer(stretch):
        if match.lastgroup == "word":
            for piece in filter(None, match[0].split("_")):
                pieces.append(bare(piece))
                found += _forms(piece.casefold())
                found += GLUED_UNIT.findall(pieces[-1])
                parts = PARTS.findall(piece)
                if 1 < len(parts) <= MOST_PARTS:
                    found += chain.from_iterable(_forms(part.casefold()) for part in parts)
        else:
            found += [run for _, run in _split(match[0])]
            pieces.append("")
    numbers = [number for number in NUMBER.findall(low) if not number.isdigit()]
    found += chain.from_iterable(map(_number_forms, numbers))
    if 1 < len(pieces) <= MOST_PARTS and all(pieces) and not (numbers or stretch.isdigit()):
        found.append("".join(pieces))  # a code, however it is joined: AX-4711/B, AX4711B
    return tuple(found)


def _number_forms(number: str) -> list[str]:
    """`3,5` is also `3.5`, and `1,234.50` and `1.234,50` are `1234.50`."""
    marks = regex.findall(r"[.,]", number)
    whole, mark, rest = number[: number.rfind(marks[-1])], marks[-1], number[number.rfind(marks[-1]) + 1 :]
    forms = [number]
    if marks.count(mark) == 1:
        forms.append(f"{regex.sub('[.,]', '', whole)}.{rest}")
    if regex.fullmatch(r"\d{1,3}(?:[.,]\d{3})+", number) and len(set(marks)) == 1:
        forms.append(regex.sub("[.,]", "", number))
    return list(dict.fromkeys(forms))


@lru_cache(maxsize=1 << 17)
def _forms(word: str) -> tuple[str, ...]:
    """A word in lower case, without its marks, and its stems."""
    found = {bare(word)}
    script = _script(word)
    if (len(word) > 2 and word.isalpha()) or not word.isascii():
        composed = unicodedata.normalize("NFC", word)
        if script == "ARABIC":
            composed = bare(composed).translate(str.maketrans("یک", "يك"))
        found |= {bare(stem) for stem in {stemmer.stemWord(composed) for stemmer in _stemmers(script)}}
    if script == "CYRILLIC" and len(word) > 5:
        found |= {bare(word[:-1]), bare(word[:-2])}  # of the languages without a stemmer
    if not (word.isascii() or script in STEMMERS):
        found |= {word[i : i + 3] for i in range(len(word) - 2)}  # `המסנן` has `מסנן` in it
        base = bare(word)
        found |= {base[i : i + 3] for i in range(len(base) - 2)}
    return tuple(sorted(found - {""}))


def _quantities(tokens: list[str], places: Iterable[int]) -> list[str]:
    """Units by their symbols, and numbers with what follows them: `35 Nm`, `35Nm` and `35 newton metres` are `35nm`."""
    found = []
    end = 0
    for place in places:
        if place < end:
            continue  # inside the unit before
        number = tokens[place][:1].isdigit()
        end = place + number
        symbol, taken = _unit(tokens, end)
        if symbol:
            found.append(symbol)
        elif number and end < len(tokens) and len(tokens[end]) <= SHORT and not tokens[end].isdigit():
            symbol, taken = tokens[end], 1
        if number and symbol:
            found.append(tokens[place].rstrip(".,").replace(",", ".") + symbol)
        end += taken
    return found


def _unit(tokens: list[str], place: int) -> tuple[str, int]:
    """The symbol of the unit whose name begins at a place, and of how many words the name is."""
    if place >= len(tokens) or tokens[place] not in FIRST_OF_UNIT:
        return "", 0
    for count in range(LONGEST_UNIT, 0, -1):
        if symbol := UNITS.get(" ".join(tokens[place : place + count])):
            return symbol, count
    return "", 0


@lru_cache(maxsize=1 << 12)
def _script_of(letter: str) -> str:
    return unicodedata.name(letter, "").split(" ")[0]


def _script(word: str) -> str:
    return "LATIN" if word.isascii() else next((_script_of(c) for c in word if c.isalpha()), "")


@cache
def _stemmers(script: str) -> tuple:
    import Stemmer

    return tuple(Stemmer.Stemmer(name, 0) for name in STEMMERS.get(script, "").split())  # `_forms` has the cache
