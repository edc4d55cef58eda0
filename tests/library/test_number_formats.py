"""Cells as a spreadsheet shows them."""

from __future__ import annotations

from datetime import datetime, time, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lite.library.number_formats import shown

EURO = '_-* #,##0.00\\ "€"_-;\\-* #,##0.00\\ "€"_-;_-* "-"??\\ "€"_-;_-@_-'


@pytest.mark.parametrize(
    ("value", "number_format", "text"),
    [
        (0.075, "0.0%", "7.5%"), (1234.5, '"$"#,##0.00', "$1,234.50"), (42, "00000", "00042"), (12, '0" kg"', "12 kg"),
        (datetime(2026, 3, 15), "dd/mm/yyyy", "15/03/2026"), (time(6, 30), "hh:mm", "06:30"),
        (timedelta(hours=31, minutes=5), "[h]:mm", "31:05"), (timedelta(minutes=75, seconds=3), "mm:ss", "15:03"),
        (-350, "#,##0;(#,##0)", "(350)"), (-350, "#,##0", "-350"), (-0.05, "0%;[Red]-0%", "-5%"),
        (0, '0;-0;"free"', "free"), (5, ";;;", "5"), (1234567.891, "#,##0.0#", "1,234,567.89"),
        (1500000, '0.0,,"M"', "1.5M"), (0.00012, "0.00E+00", "1.20E-04"), (2.675, "0.00", "2.68"), (7, "0.##", "7"),
        (1234.5, "#,##0.00\\ [$€-407]", "1,234.50 €"), (-1234.5, EURO, "-1,234.50 €"), (0.1 + 0.2, "General", "0.3"),
        (55123, "00\\-000", "55-123"), (123456789, "(000) 000-0000", "(012) 345-6789"), (21.5, '0.0"°C"', "21.5°C"),
        (datetime(2025, 3, 1, 20, 5, 9), "d mmm yyyy h:mm AM/PM", "1 Mar 2025 8:05 PM"), (True, "General", "TRUE"),
        (datetime(2025, 3, 1), "yyyy-mm-dd h:mm:ss", "2025-03-01"), (3.25, "# ??/??", "3 1/4"), (None, "0", ""),
    ],
)  # fmt: skip
def test_what_excel_shows(value: object, number_format: str, text: str) -> None:
    assert shown(value, number_format) == text


@given(
    st.one_of(
        st.integers(), st.floats(allow_nan=True), st.datetimes(), st.times(), st.timedeltas(), st.text(max_size=9)
    ),
    st.text('0#?.,%$€ -/;:"\\[]hmsydAMP@_*Ee+General', max_size=20),
)
def test_no_format_ends_in_an_exception_or_hides_a_number(value: object, number_format: str) -> None:
    text = shown(value, number_format)
    assert isinstance(text, str)
    if isinstance(value, int):
        assert text


@pytest.mark.parametrize(
    ("value", "number_format", "text"),
    [
        (1.5, "# ?/?", "1 1/2"), (0.75, "# ?/?", "3/4"), (-2.5, "# ?/?", "-2 1/2"), (1.5, "?/?", "3/2"),
        (0.5, "# ?/100", "50/100"), (4, "# ?/?", "4"), (0, "# ?/?", "0"),
        (12500, '[>=1000]0.0,"k";0', "12.5k"), (500, '[>=1000]0.0,"k";0', "500"), (-5, "[<0]0.0;0", "-5.0"),
        (1, '[=1]0" day";0" days"', "1 day"), (3, '[=1]0" day";0" days"', "3 days"), (7, "[>9]0", "7"),
        ("abc", '"No. "@', "No. abc"), ("abc", '0;-0;0;"<"@">"', "<abc>"), ("abc", "@", "abc"), ("abc", "0.00", "abc"),
    ],
)  # fmt: skip
def test_fractions_conditions_and_texts_as_excel_shows_them(value: object, number_format: str, text: str) -> None:
    assert shown(value, number_format) == text
