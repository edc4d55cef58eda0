"""Mails saved as files (.eml): who wrote what to whom, and what is attached."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from email import message_from_bytes, policy
from email.message import EmailMessage

from lite.library.decoding import decoded
from lite.library.html import split_html
from lite.library.parts import Part
from lite.library.splitting import PART_CHARS, split_text

HEADERS = ("From", "To", "Cc", "Date", "Subject")


def split_mail(data: bytes) -> Iterator[Part]:
    """The texts of a mail, the first with its headers; attachments are named, not read."""
    mail = message_from_bytes(data, policy=policy.default)
    subject = _header(mail, "Subject")
    headers = _headers(mail, HEADERS)
    attached = [part.get_filename() or part.get_content_type() for part in mail.walk() if _is_attached(part)]
    if attached:
        headers += f"\nAttached: {', '.join(attached)}"
    parts = [part for body in _bodies(mail) for part in _parts(body)]
    if parts and parts[0].kind == "text" and len(headers) + len(parts[0].text) + 2 <= PART_CHARS:
        parts[0] = replace(parts[0], text=f"{headers}\n\n{parts[0].text}")
    else:
        parts = [*(Part("", "text", "", text) for text in split_text(headers)), *parts]
    note = f"what is attached was not read: {', '.join(attached)[:300]}." if attached else ""
    for number, part in enumerate(parts, start=1):
        title = " > ".join(filter(None, (subject[:300], part.title if part.title != subject else "")))
        yield replace(part, place=f"part={number}", title=title, note=" ".join(filter(None, (note, part.note))))
        note = ""


def _headers(mail: EmailMessage, names: Iterable[str]) -> str:
    return "\n".join(f"{name}: {text}" for name in names if (text := _header(mail, name)))


def _header(mail: EmailMessage, name: str) -> str:
    try:
        return " ".join(str(mail.get(name, "")).split())
    except (
        ValueError,
        LookupError,
        IndexError,
        AttributeError,
        TypeError,
    ):  # what the standard library throws at odd ones
        return ""


def _is_attached(part: EmailMessage) -> bool:
    if part.is_multipart():
        return False
    return part.get_content_disposition() == "attachment" or part.get_content_maintype() != "text"


def _bodies(mail: EmailMessage) -> Iterator[EmailMessage]:
    """The texts, also of forwarded mails; of one text in several forms, the richest of those that are read."""
    if mail.get_content_type() == "multipart/alternative":
        forms = {part.get_content_type(): part for part in mail.iter_parts()}
        best = next(
            (
                forms[kind]
                for kind in ("multipart/related", "multipart/mixed", "text/html", "text/plain")
                if kind in forms
            ),
            None,
        )
        if best is not None:
            yield from _bodies(best)
    elif mail.get_content_type() == "message/rfc822":
        for forwarded in mail.get_payload():
            headers = EmailMessage(policy=policy.default)
            headers.set_content(_headers(forwarded, HEADERS).encode("utf-8", "replace").decode() + "\n")
            yield headers
            yield from _bodies(forwarded)
    elif mail.is_multipart():
        for part in mail.iter_parts():
            yield from _bodies(part)
    elif not _is_attached(mail):
        yield mail


def _parts(body: EmailMessage) -> Iterator[Part]:
    data = body.get_payload(decode=True) or b""
    text = decoded(data, body.get_content_charset() or "")
    if body.get_content_type() == "text/html":
        yield from split_html(text)
    else:
        yield from (Part("", "text", "", part) for part in split_text(text))
