"""Files of JSON lines, plain or compressed."""

from __future__ import annotations

import gzip
import json
import shlex
import zlib
from collections.abc import Iterator
from pathlib import Path

from lite.data.problems import Problems
from lite.schema import LiteError

ARRAY = (
    "{path} is one JSON array, and must hold one object per line. This writes it so: python -c 'import json, sys; "
    "[print(json.dumps(row)) for row in json.load(open(sys.argv[1]))]' {path} > {lines}"
)


def read_lines(path: Path, problems: Problems) -> Iterator[tuple[int, dict]]:
    """(line number from 1, object) of a `.jsonl` or `.jsonl.gz` file; empty lines are passed over."""
    line = 0
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else open(path, "rb") as file:
            for line, text in enumerate(file, start=1):
                text = text.strip().removeprefix(b"\xef\xbb\xbf")
                if line == 1 and text.startswith(b"["):
                    raise LiteError(ARRAY.format(path=shlex.quote(str(path)), lines=f"{path.stem}-lines.jsonl"))
                if not text:
                    continue
                try:
                    row = json.loads(text)
                    if not isinstance(row, dict):
                        raise ValueError("not an object")
                except (ValueError, RecursionError) as error:  # bad JSON or bad UTF-8
                    problems.add("bad JSON", f"{path}, line {line}: {_explained(text, error)}.")
                    continue
                yield line, row
    except FileNotFoundError:
        raise LiteError(f"{path} does not exist.") from None
    except (EOFError, OSError, zlib.error) as error:
        problems.add("broken file", f"{path}, after line {line}: {error}. Download it again.")


def _explained(text: bytes, error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if text == b"{":
        return "an object must stand on one line (json.dumps(row), without indent)"
    if text.startswith(b"{'"):
        return f"{error}: JSON wants double quotes, not single ones; Python's json.dumps writes them"
    return str(error)
