"""The text that bytes stand for, whatever program wrote them."""

from __future__ import annotations

import re

import chardet
import regex

from lite.library.parts import Unreadable

PROBE = 200_000  # bytes that an encoding is told from
FEW_WORDS = (
    4  # words with accents, below which statistics tell nothing; of letters that all have the highest bit, few suffice
)
# What accents and signs look like in a text of western Europe; signs do not stand between letters, but these do.
ACCENTS = set("àâäáãåæçéèêëíìîïñóòôöõøœßúùûüÀÂÄÁÃÅÆÇÉÈÊËÍÌÎÏÑÓÒÔÖÕØŒÚÙÛÜ")
SIGNS = set("“”‘’‚„–—…€°§µ±²³«»¿¡½¼¾£©®™·•×÷ºª´\xa0")
WITHIN_WORDS = set("’–—·")
ODD = regex.compile(r"[\x80-\x84\x86-\x9f]|\p{Ll}[\p{Lu}--[A-Z]]\p{Ll}", regex.V1)
# What few words are tried for; statistics on all eighty encodings take them for Urdu or Icelandic.
COMMON = (
    "cp1250 cp1251 cp1252 cp1253 cp1254 cp1255 cp1256 cp1257 iso8859-2 cp437 cp850 cp852 cp866 mac-roman koi8-r cp874 "
    "shift_jis_2004 euc_jis_2004 gb18030 big5hkscs cp949"
).split()


def decoded(data: bytes, declared: str = "") -> str:
    """The text: by its mark, as UTF-8, as declared, or by what the bytes look like.

    Args:
        data: A whole file.
        declared: The encoding that the file says it has, if any; it may be wrong.

    Raises:
        Unreadable: It is no text.
    """
    for mark, encoding in ((b"\xff\xfe\0\0", "utf-32"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16")):
        if data.startswith(mark):
            return data.decode(encoding, errors="replace")
    if b"\0" in data[:PROBE]:
        return data.decode(_without_mark(data[:PROBE]), errors="replace")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("utf-8-sig", errors="replace")
        bad = text.count("\ufffd")
        if 20 * bad > len(re.findall(r"[^\x00-\x7f]", text)):  # else a few damaged letters
            start = max(0, re.search(rb"[\x80-\xff]", data).start() - 1000)
            probe = data[start : start + PROBE]
            return _declared(data, declared) or data.decode(_encoding(probe), errors="replace")
    if "\x1b$" in text:
        return data.decode("iso2022_jp_2", errors="replace")
    return text


def _without_mark(data: bytes) -> str:
    """UTF-16 that does not say so: every second byte of plain letters is zero."""
    half = max(1, len(data) // 2)
    for encoding, zeros in (("utf-16-le", data[1::2].count(0)), ("utf-16-be", data[::2].count(0))):
        if zeros > 0.3 * half and data.count(0) - zeros < 0.02 * half:
            return encoding
    raise Unreadable("it is no text, whatever its name says (it holds zero bytes).")


def _declared(data: bytes, encoding: str) -> str:
    """Empty where the bytes are not of this encoding, or it is none that is known."""
    try:
        return data.decode({"iso-8859-1": "cp1252", "gb2312": "gb18030"}.get(encoding.lower(), encoding))
    except (UnicodeDecodeError, LookupError, ValueError):
        return ""


def _encoding(data: bytes) -> str:
    words = set(re.findall(rb"[A-Za-z\x80-\xff]*[\x80-\xff][A-Za-z\x80-\xff]*", data))
    few = sum(len(word) > 1 for word in words) < FEW_WORDS and not re.search(rb"[\x80-\xff]{4}", data)
    if few and _looks_western(data):
        return "cp1252"
    found = chardet.detect(data, include_encodings=COMMON if few else None, compat_names=False)["encoding"]
    if found and _is_odd(data, found):
        likely = [encoding for encoding in COMMON if not _is_odd(data, encoding)]
        found = (likely and chardet.detect(data, include_encodings=likely, compat_names=False)["encoding"]) or found
    return {"iso8859-1": "cp1252"}.get(found, found) or "cp1252"


def _is_odd(data: bytes, encoding: str) -> bool:
    """Whether the text would hold what no text does: control characters, a capital with an accent within a word."""
    try:
        return bool(ODD.search(data.decode(encoding)))
    except (UnicodeDecodeError, LookupError):
        return True


def _looks_western(data: bytes) -> bool:
    text = data.decode("cp1252", errors="replace")
    for match in re.finditer(r"[^\x00-\x7f]", text):
        before, sign, after = text[match.start() - 1 : match.start()], match[0], text[match.end() : match.end() + 1]
        if sign in ACCENTS:
            if sign.isupper() and before.islower():
                return False
        elif sign not in SIGNS or (before.isalpha() and after.isalpha() and sign not in WITHIN_WORDS):
            return False
    return True
