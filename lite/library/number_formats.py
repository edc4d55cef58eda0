"""Numbers, dates and times as a spreadsheet shows them, by the format of their cell.

openpyxl gives values without formats; ports of SheetJS's formatter to Python are no longer kept. This is the part of
the format language that people's files use; where a format is of another kind, the plain value is shown.
"""

from __future__ import annotations

import operator
import re
from datetime import date, datetime, time, timedelta
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation
from fractions import Fraction

ISO = "yyyy-mm-dd h:mm:ss"  # what Python programs write dates with: the time is left out at midnight
BUILT_IN_DATES = {"mm-dd-yy": "yyyy-mm-dd", "m/d/yy h:mm": "yyyy-mm-dd h:mm"}  # shown as the reader's country has it
# "text", \x, _x (as wide as x), *x (filled with x), [Red], [$€-407], [h] or a placeholder of a date or number.
TOKEN = re.compile(
    r'"(?P<text>[^"]*)"|\\(?P<escaped>.)|_(?P<space>.)|\*(?P<fill>.)|\[(?P<bracket>[^\]]*)\]|(?P<half>AM/PM|A/P)'
    r"|(?P<general>General)|(?P<date>[yY]+|[mM]+|[dD]+|[hH]+|[sS]+(?:\.0+)?)|(?P<number>[0#?][0#?,.]*|\.[0#?]+)"
    r"|(?P<exponent>[eE][+-][0#?]+)|(?P<percent>%)|(?P<other>.)",
    re.DOTALL,
)

CONDITION = re.compile(r"(<=|>=|<>|<|>|=)(-?\d+(?:\.\d+)?)")
COMPARE = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "=": operator.eq,
    "<>": operator.ne,
}
FRACTION = re.compile(r"(?P<whole>[0#?]+ +)?[0#?]+ */ *(?P<below>[0-9#?]+)")


def shown(value: object, number_format: str) -> str:
    """A cell's value as text.

    Args:
        value: As openpyxl reads it: a number, a text, a bool, a date, a time, a duration or None.
        number_format: Of its cell, as in Excel: `0.0%`, `"$"#,##0.00`, `[h]:mm`.
    """
    if value is None:
        return ""
    if isinstance(value, str):
        return _text(value, _sections(number_format)) if "@" in number_format and number_format != "@" else value
    if isinstance(value, bool):
        return str(value).upper()
    try:
        if isinstance(value, (datetime, date, time, timedelta)):
            return (number_format != ISO and _date(value, _sections(number_format)[0])) or _plain(value)
        if isinstance(value, (int, float)):
            return _number(value, _sections(number_format)) or _plain(value)
    except (ValueError, ArithmeticError, InvalidOperation):
        pass  # a format that no program writes
    return _plain(value)


def _plain(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.15g}"  # as Excel rounds what it shows: 0.1 + 0.2 is 0.3
    if isinstance(value, datetime) and value.time() == time():
        return value.date().isoformat()
    if isinstance(value, timedelta):
        return _elapsed(value, "h") + f":{value.seconds // 60 % 60:02}:{value.seconds % 60:02}"
    return str(value)


def _sections(number_format: str) -> list[list[tuple[str, str]]]:
    """Tokens of the format for positive numbers, for negative ones, for zero."""
    sections: list[list[tuple[str, str]]] = [[]]
    for match in TOKEN.finditer(BUILT_IN_DATES.get(number_format, number_format or "General")[:255]):
        kind, text = match.lastgroup or "other", match[match.lastgroup or 0]
        if kind == "other" and text == ";":
            sections.append([])
        else:
            sections[-1].append((kind, text))
    return sections


def _text(value: str, sections: list[list[tuple[str, str]]]) -> str:
    """A text between what its format puts around it, as in `"No. "@`."""
    tokens = sections[-1]
    if ("other", "@") not in tokens:
        return value
    return "".join(value if token == ("other", "@") else _literal(*token) for token in tokens).strip()


def _chosen(value: float, sections: list[list[tuple[str, str]]]) -> list[tuple[str, str]] | None:
    """The tokens whose condition holds, as in `[>=1000]0.0,"k";0`; None where no section has a condition."""
    conditions = [
        next((c for kind, t in s if kind == "bracket" and (c := CONDITION.fullmatch(t))), None) for s in sections
    ]
    if not any(conditions):
        return None
    for tokens, condition in zip(sections, conditions, strict=True):
        if condition is None or COMPARE[condition[1]](value, float(condition[2])):
            return tokens
    return []


def _fraction(value: float, tokens: list[tuple[str, str]]) -> str:
    """`# ?/?` and `?/100`."""
    form = FRACTION.fullmatch("".join(text for kind, text in tokens if kind in ("number", "other")).strip())
    if not form:
        return ""
    value = abs(value)
    if form["below"].isdigit() and int(form["below"]):
        below = int(form["below"])
        above = round(value * below)
    else:
        above, below = Fraction(value).limit_denominator(10 ** len(form["below"]) - 1).as_integer_ratio()
    whole, above = divmod(above, below) if form["whole"] else (0, above)
    return " ".join([str(whole)] * bool(whole or not above) + [f"{above}/{below}"] * bool(above))


def _number(value: float, sections: list[list[tuple[str, str]]]) -> str:
    tokens = sections[0]
    minus = value < 0
    chosen = _chosen(value, sections)
    if chosen is not None:
        tokens = chosen
    elif minus and len(sections) > 1:
        tokens, minus = sections[1], False  # which shows the sign in its own way
        if not tokens:
            return _plain(value)  # hidden by ;;; and yet there
    elif value == 0 and len(sections) > 2:
        tokens = sections[2] or [("general", "")]
    kinds = {kind for kind, _ in tokens}
    if "number" not in kinds and "general" not in kinds:
        # A literal alone, as "free" for zero; dates in such a cell openpyxl has read as dates.
        literal = "".join(_literal(kind, text) for kind, text in tokens)
        return "" if "date" in kinds or not literal.strip() else literal.strip()
    if "other" in kinds and any(text in "/" for kind, text in tokens if kind == "other"):
        fraction = _fraction(value, tokens)
        return fraction and "-" * minus + fraction
    value = abs(value) * 100 ** sum(kind == "percent" for kind, _ in tokens)
    places = [text for kind, text in tokens if kind == "number"]
    exponent = next((text for kind, text in tokens if kind == "exponent"), "")
    digits = iter(_placed(value, places, exponent))
    out = []
    for kind, text in tokens:
        if kind == "number":
            out.append(next(digits, ""))
        elif kind == "general":
            out.append(_plain(value))
        elif kind != "exponent":
            out.append(_literal(kind, text))
    return ("-" * minus + "".join(out)).strip()


def _placed(value: float, places: list[str], exponent: str) -> list[str]:
    """The digits, as `#,##0.00` wants them; for `000-0000` and the like those of each group."""
    if exponent and places:
        decimals = len(places[0].partition(".")[2])
        mantissa, _, power = f"{value:.{decimals}e}".partition("e")
        return [f"{mantissa}E{power[0]}{int(power[1:]):0{len(exponent) - 2}}"]
    form = "".join(places)
    scale = len(form) - len(form.rstrip(","))  # each comma at the end: in thousands
    whole, _, fraction = form.rstrip(",").partition(".")
    exact = Decimal(repr(value)) / 1000**scale
    before, _, after = f"{exact.quantize(Decimal(1).scaleb(-len(fraction)), ROUND_HALF_UP):f}".partition(".")
    while after and fraction[len(after) - 1] in "#?" and after.endswith("0"):
        after = after[:-1]
    before = before.lstrip("0").rjust(whole.count("0"), "0")
    if "," in whole:
        before = re.sub(r"(?<=\d)(?=(?:\d{3})+$)", ",", before)
    groups = []
    for place in reversed(places[1:] if "." not in form else []):
        groups.append(before[-len(place) :])
        before = before[: -len(place)]
    return [before + "." * bool(after) + after, *reversed(groups)]


def _literal(kind: str, text: str) -> str:
    if kind == "bracket":  # [$€-407] is a currency, [Red] a colour
        return text[1:].partition("-")[0] if text.startswith("$") else ""
    if kind == "space":
        return " "
    return text if kind in ("text", "escaped", "percent", "other") and text != "@" else ""


def _date(value: datetime | date | time | timedelta, tokens: list[tuple[str, str]]) -> str:
    if not any(kind == "date" or _is_elapsed(kind, text) for kind, text in tokens):
        return ""
    half = any(kind == "half" for kind, _ in tokens)
    out, last = [], ""
    for place, (kind, text) in enumerate(tokens):
        following = next((t for k, t in tokens[place + 1 :] if k == "date"), "")
        if kind == "date":
            beside_time = (last[:1] or "-") in "hH" or (following[:1] or "-") in "sS"
            minute = text[0] in "mM" and len(text) < 3 and beside_time
            out.append(_field(value, text.lower(), minute, half))
            last = text
        elif kind == "half":
            out.append("AM" if _clock(value)[0] % 24 < 12 else "PM")
        elif _is_elapsed(kind, text):
            out.append(_elapsed(value, text.lower()))
            last = text
        elif kind == "number":
            continue  # fractions of seconds
        else:
            out.append(_literal(kind, text))
    return "".join(out).strip()


def _field(value: datetime | date | time | timedelta, text: str, minute: bool, half: bool) -> str:
    hours, minutes, seconds = _clock(value)
    letter, wide = text[0], len(text) > 1
    if letter == "h":
        hours = (hours % 12 or 12) if half else hours
        return f"{hours:02}" if wide else str(hours)
    if letter == "s" or minute:
        number = seconds if letter == "s" else minutes
        return f"{number:02}" if wide else str(number)
    if not isinstance(value, date):
        raise ValueError("a time has no date")
    names = {"y": ["%y", "%y", "%Y", "%Y"], "m": ["", "%m", "%b", "%B"], "d": ["", "%d", "%a", "%A"]}[letter]
    if len(text) == 1 and letter != "y":
        return str(value.month if letter == "m" else value.day)
    return value.strftime(names[min(len(text), 4) - 1])


def _clock(value: datetime | date | time | timedelta) -> tuple[int, int, int]:
    if isinstance(value, timedelta):
        total = round(value.total_seconds())
        return total // 3600, total // 60 % 60, total % 60
    return (value.hour, value.minute, value.second) if isinstance(value, (datetime, time)) else (0, 0, 0)


def _is_elapsed(kind: str, text: str) -> bool:
    return kind == "bracket" and text.lower() in ("h", "hh", "m", "mm", "s", "ss")


def _elapsed(value: datetime | date | time | timedelta, text: str) -> str:
    """[h], [m] or [s]: all hours, minutes or seconds, also beyond a day."""
    if isinstance(value, datetime):
        value -= datetime(1899, 12, 30)
        return _elapsed(value, text)
    hours, minutes, seconds = _clock(value)
    number = {"h": hours, "m": 60 * hours + minutes, "s": 3600 * hours + 60 * minutes + seconds}[text[0]]
    return f"{number:0{len(text)}}"
