"""No text of a stranger drives the terminal."""

from __future__ import annotations

import contextlib
import io
import json
import traceback
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from rich.table import Table

from lite.cli import main as cli
from lite.console import Console
from lite.terminal import PrintableStream, printable, printable_json

EVIL = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202eevil\x7f\r[/red][link=x]"


def is_quiet(text: str) -> bool:
    return not any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") and c not in "\n\t" for c in text) and (
        "\u202e" not in text
    )


@given(st.text(st.characters()))
def test_nothing_but_text_is_left(text: str) -> None:
    assert is_quiet(printable(text))
    assert len(printable(text)) == len(text)
    printable(text).encode()


@given(st.recursive(st.text(st.characters()), lambda inner: st.lists(inner, max_size=3), max_leaves=5))
def test_json_stays_the_same_value(value: object) -> None:
    line = printable_json(json.dumps(value, ensure_ascii=False))
    assert is_quiet(line)
    assert json.loads(line) == json.loads(json.dumps(value))


def test_words_of_other_scripts_stay_as_they_are() -> None:
    text = "می‌خواهم 日本語\u3000東京 👩‍🚀 Ünïcode\u00a0x"
    assert printable(text) == text


def test_whatever_a_console_prints_is_text() -> None:
    out = io.StringIO()
    console = Console(file=out, width=300)
    table = Table(title=EVIL)
    table.add_column(EVIL)
    table.add_row(EVIL)
    console.print(table)
    console.print(EVIL)
    console.rule(EVIL)
    assert is_quiet(out.getvalue())
    assert out.getvalue().count("[/red][link=x]") == 5  # brackets are no markup


def hostile_file(folder) -> str:
    Image.new("RGB", (9, 9)).save(folder / "a.png")
    rows = [
        {"id": f"d{EVIL}", "kind": "text", "title": EVIL, "text": f"{EVIL} bars"},
        {"id": "d2", "kind": "image", "title": EVIL, "image": "a.png"},
        {"id": f"q{EVIL}", "question": f"How many{EVIL}?", "relevant": [f"d{EVIL}"], "answers": [EVIL],
         "category": EVIL, "documents": ["d2"], "split": "dev"},
        {"id": "q2", "question": "?", "relevant": [f"gone{EVIL}"], "split": "dev"},
        {f"field{EVIL}": 1, "question": "?"},
    ]  # fmt: skip
    path = folder / "own.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return f"jsonl:{path}"


@pytest.mark.parametrize(
    "arguments",
    [
        ["data", "inspect", "DATA"],
        ["data", "validate", "DATA"],
        ["data", "inspect", f"jsonl:{EVIL}"],
        ["data", "inspect", "flags", f"--{EVIL}"],
        ["data", EVIL],
        ["search", f"x{EVIL}", "--library", EVIL],
        ["search", "x", EVIL],
        ["index", EVIL],
        ["ask", EVIL, "--documents", EVIL],
        ["ask", EVIL, "--documents", "own.jsonl"],
        ["export", "--run", EVIL, "--output_dir", EVIL],
        ["demo", "--port", EVIL],
        ["metrics", "webqa", "--gold", EVIL, "--predictions", EVIL],
        ["train", "stage1", "--config", EVIL],
        ["train", "stage1", f"--{EVIL}"],
        ["evaluate", f"--{EVIL}", "1"],
        [EVIL],
    ],
)
def test_no_command_repeats_what_drives_a_terminal(arguments, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    spec = hostile_file(tmp_path)
    try:
        status = cli.main([spec if argument == "DATA" else argument for argument in arguments])
    except SystemExit as end:
        status = end.code
    assert status in (0, 1, 2)
    out, err = capsys.readouterr()
    assert out + err
    assert is_quiet(out + err)


def test_what_a_server_prints_of_a_request_is_text() -> None:
    out = io.StringIO()
    with contextlib.redirect_stderr(PrintableStream(out)):
        try:
            raise ValueError(EVIL)
        except ValueError:
            traceback.print_exc()
    assert "ValueError" in out.getvalue()
    assert "\n" in out.getvalue()
    assert is_quiet(out.getvalue())
