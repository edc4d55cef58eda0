"""What is wrong with a data set's files: an error that names the place, or, with `--skip_broken`, a count."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from lite.schema import LiteError


@dataclass
class Problems:
    """Collects what loaders find.

    Args:
        skip: Whether to go on without what is broken; otherwise the first problem is raised.
        messages: Every problem; each names its file and line, or its id.
        counts: Problems by kind, such as `missing image`.
        notes: What was odd and could be mended without loss, by kind.
    """

    skip: bool = False
    messages: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)

    def add(self, kind: str, message: str) -> None:
        """Record a problem.

        Raises:
            LiteError: `skip` is off.
        """
        if not self.skip:
            raise LiteError(f"{message} (--skip_broken goes on without it, and counts.)")
        self.messages.append(message)
        self.counts[kind] += 1

    def summary(self) -> str:
        """One line: what was left out, and the first example; empty where nothing was."""
        if not self.messages:
            return ""
        kinds = ", ".join(f"{count} × {kind}" for kind, count in self.counts.most_common())
        return f"Left out as broken: {kinds}. First: {self.messages[0]}"
