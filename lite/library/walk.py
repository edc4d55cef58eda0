"""Which files of a folder are read. Links are never followed: one may lead out of the folder."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from lite.library.readers import SUFFIXES

OFFICE_LOCK = "~$"  # what Office leaves beside a file that is open; it has the file's name
LONGEST_NAME = 300  # characters of a path in a message


@dataclass
class LeftOut:
    """What was not read.

    Args:
        problems: `path: reason`, for people.
        kinds: How many files by ending, `link` or `other`, that are of no kind that is read.
        places: Folders and files that could not be looked at, so that what is below them is not known.
    """

    problems: list[str] = field(default_factory=list)
    kinds: Counter[str] = field(default_factory=Counter)
    places: set[Path] = field(default_factory=set)

    def unseen(self, place: Path, error: OSError) -> None:
        """Report a place that cannot be looked at."""
        name = str(place)
        if len(name) > LONGEST_NAME:
            name = f"{name[: LONGEST_NAME // 2]}…{name[-LONGEST_NAME // 2 :]}"
        self.places.add(place)
        self.problems.append(f"{name}: it cannot be read ({error.strerror or error}).")


def walk(root: Path, left_out: LeftOut, library: Path | None = None) -> Iterator[Path]:
    """Every file to read in and below a folder, in order.

    Args:
        root: The folder.
        left_out: What is not read is added to it; hidden files are skipped silently.
        library: A folder below that is not looked into.
    """
    unreadable = lambda error: left_out.unseen(Path(os.fsdecode(error.filename)), error)  # noqa: E731
    for folder, subfolders, names in os.walk(root, onerror=unreadable):
        place = Path(folder)
        links = [name for name in subfolders if os.path.islink(place / name)]
        left_out.kinds.update(["link"] * len(links))
        subfolders[:] = sorted(
            n for n in subfolders if not n.startswith(".") and n not in links and place / n != library
        )
        for name in sorted(names):
            if name.startswith((".", OFFICE_LOCK)):
                continue
            path = place / name
            suffix = path.suffix.lower()
            try:
                mode = path.lstat().st_mode
            except FileNotFoundError:
                continue  # deleted since the folder was listed
            except PermissionError as error:
                left_out.unseen(place, error)  # it can be listed and not entered: one line for all of its files
                subfolders.clear()
                break
            except OSError as error:
                left_out.unseen(path, error)
                continue
            if stat.S_ISLNK(mode):
                left_out.kinds["link"] += 1
            elif not stat.S_ISREG(mode) or suffix not in SUFFIXES:
                left_out.kinds[suffix if stat.S_ISREG(mode) and suffix else "other"] += 1
            else:
                yield path


def kinds_sentence(kinds: Counter[str]) -> str:
    """`2 × .odt, 1 × link`."""
    return ", ".join(f"{count} × {kind}" for kind, count in kinds.most_common())
