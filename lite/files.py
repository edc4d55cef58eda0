"""Small files that are written as a whole or not at all, and read with a sentence where they are broken."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from lite.schema import LiteError

UNFINISHED = ".part"  # ending of the temporary file; a kill may leave one behind


def write_text(path: Path, text: str) -> None:
    """Replace a file in one step: whenever the program is stopped, the file holds its old text or its new one.

    Nothing is written where it holds just that text.
    """
    data = text.encode("utf-8")
    if path.is_file() and path.read_bytes() == data:
        return
    temporary = path.with_name(f".{path.name}{UNFINISHED}")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def read_json(path: Path) -> Any:
    """The value in a JSON file.

    Raises:
        LiteError: There is no such file, or it does not hold JSON.
    """
    return _read(path, "JSON", json.loads)


def read_yaml(path: Path) -> Any:
    """The value in a YAML file of plain values; tags that would build Python objects are refused.

    Raises:
        LiteError: There is no such file, or it does not hold such YAML.
    """
    return _read(path, "YAML", yaml.safe_load)


def _read(path: Path, kind: str, parse: Callable[[str], Any]) -> Any:
    try:
        return parse(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise LiteError(f"{path} does not exist.") from None
    except OSError as error:
        raise LiteError(f"{path} cannot be read: {error.strerror}.") from error
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else f"{error}".replace("\n", " ")[:300]
        raise LiteError(f"{path} is not {kind}: {reason.rstrip('.')}. Restore the file, or remove it.") from error
