"""Sections of the README that programs write: what stands between `<!-- name -->` and `<!-- /name -->`."""

from __future__ import annotations

import re
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"


def marks(name: str) -> tuple[str, str]:
    """What stands before and after the section."""
    return f"<!-- {name} -->", f"<!-- /{name} -->"


def write_section(name: str, text: str) -> None:
    """Put `text` between the marks, and show it."""
    start, end = marks(name)
    before = README.read_text()
    if not re.search(f"{start}.*{end}", before, flags=re.DOTALL):
        raise SystemExit(f"{README} has no {start} … {end} to write to.")
    section = f"{start}\n{text}\n{end}"
    README.write_text(re.sub(f"{start}.*{end}", lambda _: section, before, flags=re.DOTALL))
    print(section)
