"""Which library is meant where none is named: the one of the working directory, or the one that was used last."""

from __future__ import annotations

import os
from pathlib import Path

from lite.files import write_text

DEFAULT = "lite-library"  # with a hyphen: a folder of this name can hide no Python module
EARLIER = "library"  # the default of lite 0.1.0


def default_library() -> str:
    """The library of the working directory, which need not exist."""
    earlier = Path(EARLIER, "documents.lance").is_dir() and not Path(DEFAULT).is_dir()
    return EARLIER if earlier else DEFAULT


def remember(address: str) -> None:
    """Note the library that was used last; without a home to write to, nothing happens."""
    try:
        _note().parent.mkdir(parents=True, exist_ok=True)
        write_text(_note(), address if "://" in address else str(Path(address).resolve()))
    except OSError:
        pass


def last_used() -> str | None:
    """The library that was used last, if it still exists."""
    try:
        address = _note().read_text(encoding="utf-8")
    except (OSError, ValueError):
        return None
    return address if "://" in address or Path(address).is_dir() else None


def _note() -> Path:
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "lite" / "last-library"
