"""Files read, and embedded, by the workers of a Ray cluster."""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from lite.library.readers import Limits, Part, Unreadable
from lite.library.workers import read_files
from lite.ray import run_on_ray

Read = tuple[Path, list[Part] | Unreadable]
FILES = 32  # that a worker reads between two reports


def read_on_ray(
    paths: Iterable[Path], ocr: bool, limits: Limits, root: Path, embedding: str, workers: int | None
) -> Iterator[Read]:
    """As `read_files`, on the workers of a cluster, with the vectors of the documents.

    Args:
        paths: Seen by every worker under the same name.
        root: The folder that is indexed; titles are told from it.
        embedding: The library's.
        workers: How many; None: one per GPU of the cluster where there is an embedding, else per CPU core.
    """
    every = list(paths)
    rows = [{"paths": pickle.dumps(every[i : i + FILES])} for i in range(0, len(every), FILES)]
    if rows:
        embeds = embedding != "none"
        for row in run_on_ray(rows, Reader, (ocr, limits, root, embedding), workers, on_gpus=embeds):
            yield from pickle.loads(row["result"])


class Reader:
    """A worker that reads and embeds."""

    def __init__(self, ocr: bool, limits: Limits, root: Path, embedding: str):
        self.ocr, self.limits, self.root, self.embedding = ocr, limits, root, embedding

    def __call__(self, row: dict[str, Any]) -> bytes:
        """What `read_files` yields of the pickled `paths`, pickled."""
        # In one process beside this one, as anywhere: a file may bring its reader down.
        found = list(read_files(pickle.loads(row["paths"]), self.ocr, self.limits, workers=1))
        return pickle.dumps(found if self.embedding == "none" else self._embedded(found))

    def _embedded(
        self, found: list[tuple[Path, list[Part] | Unreadable]]
    ) -> list[tuple[Path, list[Part] | Unreadable]]:
        from lite.library.embedding import embed_rows
        from lite.library.update import as_row

        readable = [(path, parts) for path, parts in found if not isinstance(parts, Unreadable)]
        rows = [as_row(part, self.root, path, "", n, "") for path, parts in readable for n, part in enumerate(parts)]
        vectors = iter(embed_rows(self.embedding, rows))
        return [
            (path, parts if isinstance(parts, Unreadable) else [replace(p, vector=tuple(next(vectors))) for p in parts])
            for path, parts in found
        ]
