"""Mails: headers, the richest text that is read, what is attached."""

from __future__ import annotations

from email.message import EmailMessage
from pathlib import Path

from lite.library.mail import split_mail
from lite.library.workers import read_documents


def mail(text: str = "Valve 7 leaks.", **headers: str) -> EmailMessage:
    message = EmailMessage()
    for name, value in {"From": "Ana Núñez <ana@example.org>", "To": "bo@example.org", **headers}.items():
        message[name] = value
    message.set_content(text)
    return message


def test_headers_text_and_names_of_what_is_attached(tmp_path: Path, caplog) -> None:
    message = mail(Subject="Größe der Pumpe", Date="Mon, 02 Mar 2026 10:00:00 +0100")
    message.add_attachment(b"\0\1", maintype="application", subtype="zip", filename="plans.zip")
    (tmp_path / "a.eml").write_bytes(bytes(message))
    (document,) = read_documents([tmp_path / "a.eml"], ocr=False)
    assert document.title == "a: Größe der Pumpe"
    for text in ("Ana Núñez", "To: bo@", "Date: Mon, 02 Mar 2026", "Subject: Größe", "Attached: plans.zip", "Valve 7"):
        assert text in document.text
    assert "not read: plans.zip" in caplog.text


def test_of_several_forms_the_richest_is_read_once() -> None:
    message = mail("Valve 7 leaks, plain.", Subject="Leak")
    message.add_alternative("<h1>Valve</h1><p hidden>tracker</p><p>Valve 7 leaks, rich.</p>", subtype="html")
    text = "\n".join(part.text for part in split_mail(bytes(message)))
    assert "Valve 7 leaks, rich." in text
    assert "plain" not in text
    assert "tracker" not in text


def test_a_forwarded_mail_is_read_too() -> None:
    outer = mail("See below.", Subject="Fwd: leak")
    outer.add_attachment(mail("The seal is broken.", Subject="leak"))
    text = "\n".join(part.text for part in split_mail(bytes(outer)))
    assert "See below." in text
    assert "The seal is broken." in text


def test_texts_in_old_encodings_and_coded_headers() -> None:
    message = EmailMessage()
    message["Subject"] = "Насос"
    message.set_content("Давление три бара.", charset="koi8-r", cte="base64")
    (part,) = split_mail(bytes(message))
    assert part.title == "Насос"
    assert "Давление три бара." in part.text


def test_odd_mails_still_give_their_text() -> None:
    raw = b"From: <<>>\r\nDate: never\r\nContent-Type: text/plain; charset=no-such\r\nTo: @@,,\r\n\r\nThe text.\r\n"
    assert "The text." in "\n".join(part.text for part in split_mail(raw))
    cut = (
        b'Subject: s\r\nContent-Type: multipart/mixed; boundary="b"\r\n\r\n--b\r\nContent-Type: text/plain\r\n\r\nHalf'
    )
    assert "Half" in "\n".join(part.text for part in split_mail(cut))


def test_long_mails_are_parts_below_one_subject() -> None:
    parts = list(split_mail(bytes(mail("All is well here. " * 300, Subject="Report"))))
    assert len(parts) > 3
    assert {part.title for part in parts} == {"Report"}
    assert len({part.place for part in parts}) == len(parts)


def test_a_forwarded_mail_keeps_its_subject_and_who_wrote_it() -> None:
    mail = (
        b"From: ann@example.org\nSubject: Fwd\nMIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b\n\n"
        b"--b\nContent-Type: text/plain\n\nSee below.\n--b\nContent-Type: message/rfc822\n\n"
        b"From: bob@example.org\nSubject: =?utf-8?B?RMO8c2U=?=\nContent-Type: text/plain\n\nIt needs 4 bar.\n--b--\n"
    )
    text = "\n".join(part.text for part in split_mail(mail))
    for piece in ("See below.", "From: bob@example.org", "Subject: D\u00fcse", "It needs 4 bar."):
        assert text.count(piece) == 1
