"""Texts in the encodings of old programs."""

from __future__ import annotations

import pytest

from lite.library.decoding import decoded
from lite.library.parts import Unreadable

TEXTS = {
    "Źródło ciepła sprawdza się co pół roku. Następnie należy wymienić uszczelkę.": "cp1250 iso8859-2 cp852",
    "Každý měsíc je třeba vyměnit filtr a zkontrolovat těsnění. Příručka popisuje údržbu.": "cp1250 iso8859-2 cp852",
    "A szivattyú nyomását minden héten ellenőrizni kell. Győződjön meg arról, hogy a szűrő tiszta.": "cp1250 iso8859-2",
    "Kırmızı ışık yanıyorsa ölçün. Şebeke suyu basıncı her gün kontrol edilmeli.": "cp1254 iso8859-9 cp857",
    "Die Prüfung der Maßgeräte erfolgt jährlich. Größere Mängel sind dem Büro zu melden.": "cp1252 cp850 mac_roman",
    "L'élève a reçu une réponse à sa requête. Où est passée la clé à molette ?": "cp1252 cp850 mac_roman",
    "Насос проверен в Твери. Давление в трубах не должно превышать трёх бар.": "cp1251 koi8-r cp866 mac_cyrillic",
    "Η αντλία ελέγχεται κάθε μήνα. Το φίλτρο πρέπει να αντικατασταθεί.": "cp1253 iso8859-7",
    "יש להחליף את המסנן כל שישה חודשים. הלחץ לא יעלה על שלושה בר.": "cp1255",
    "يجب تغيير المرشح كل ستة أشهر. يجب ألا يتجاوز الضغط ثلاثة بار.": "cp1256",
    "请每六个月更换一次过滤器。水泵的额定压力是三巴。": "gbk gb18030",
    "請每六個月更換一次過濾器。水泵的額定壓力是三巴。": "big5",
    "冷却水は毎週交換してください。圧力計は毎日確認します。": "shift_jis euc_jp iso2022_jp",
    "펌프의 정격 압력은 세 바입니다. 필터는 여섯 달마다 교체하십시오.": "cp949",
}
CASES = [(text, encoding) for text, encodings in TEXTS.items() for encoding in encodings.split()]


@pytest.mark.parametrize(("text", "encoding"), CASES, ids=[f"{encoding}-{text[:8]}" for text, encoding in CASES])
@pytest.mark.parametrize("times", [1, 12])
def test_texts_as_old_programs_saved_them(text: str, encoding: str, times: int) -> None:
    text = "\n".join([text] * times)
    assert decoded(text.encode(encoding)) == text


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_unicode_with_and_without_its_mark(encoding: str) -> None:
    text = "Umsatz in Malmö; 1,5\nand so on\n"
    assert decoded(text.encode(encoding)) == text


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("Año, niño, señor: 5 €", "cp1252"), ("5 °C ± 2 µm", "cp1252"),
        ("It’s a “test”", "cp1252"), ("naïve", "cp1252"),
        ("Größe", "cp850"), ("Kühlwasser prüfen", "mac_roman"), ("Łódź", "cp1250"), ("İstanbul, Beyoğlu", "cp1254"),
        ("Имя;Город\nОльга;Тверь\n", "cp866"), ("名前,数\nりんご,5\n", "shift_jis"), ("姓名,城市\n王芳,北京\n", "gbk"),
    ],
)  # fmt: skip
def test_a_few_words(text: str, encoding: str) -> None:
    assert decoded(text.encode(encoding)) == text


def test_accents_far_from_the_beginning_count() -> None:
    text = "plain words. " * 40_000 + "Größe und Maß"
    assert decoded(text.encode("cp1252")) == text


def test_a_damaged_letter_does_not_change_the_encoding_and_a_declared_one_is_believed() -> None:
    assert decoded("Größe, Prüfung, Maß, Öl. ".encode() * 20 + b"\xff").startswith("Größe, Prüfung")
    assert decoded("Ýmir".encode("cp1252"), "iso-8859-1") == "Ýmir"
    with pytest.raises(Unreadable, match="zero bytes"):
        decoded(b"\x7fELF\0\0\x01\0\xff\xee\0\0")


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("Příliš žluťoučký kůň úpěl ďábelské ódy.", "cp1250"),
        ("El niño pagó la señal en España según él.", "cp850"),
        ("Zítra přijde mladší bratr, řekl šéf.", "iso8859-2"),
    ],
)
def test_no_text_has_capitals_within_words_or_control_characters(text: str, encoding: str) -> None:
    assert decoded(text.encode(encoding)) == text
