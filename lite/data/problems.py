"""What is wrong with a data set's files: an error that names the place, or, with `--skip_broken`, a count."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field

from lite.schema import LiteError

NAMED = 3  # problems of one kind that are listed; the others are counted


@dataclass
class Problems:
    """Collects what loaders find. A file that is read again, for another split, adds nothing twice.

    Args:
        skip: Whether to go on without what is broken; otherwise the first problem is raised.
        found: The kind of each problem, such as `missing image`, by its message; that names a file and line, or an id.
        notes: What was odd and could be fixed without loss, by kind.
    """

    skip: bool = False
    found: dict[str, str] = field(default_factory=dict)
    notes: Counter[str] = field(default_factory=Counter)

    def add(self, kind: str, message: str) -> None:
        """Record a problem.

        Raises:
            LiteError: `skip` is off.
        """
        if not self.skip:
            raise LiteError(f"{message} (--skip_broken goes on without it, and counts.)")
        self.found[message] = kind

    @property
    def messages(self) -> list[str]:
        return list(self.found)

    @property
    def counts(self) -> Counter[str]:
        return Counter(self.found.values())

    def summary(self) -> str:
        """One line: what was left out, and the first example; empty where nothing was."""
        if not self.found:
            return ""
        kinds = ", ".join(f"{count} × {kind}" for kind, count in self.counts.most_common())
        return f"Left out as broken: {kinds}. First: {self.messages[0]}"

    def listed(self) -> list[str]:
        """The first problems of each kind, and how many more there are of it."""
        of_kind = defaultdict(list)
        for message, kind in self.found.items():
            of_kind[kind].append(message)
        lines = []
        for kind, messages in sorted(of_kind.items(), key=lambda item: -len(item[1])):
            lines += messages[:NAMED]
            more = len(messages) - NAMED
            lines += [f"… and {more:,} more of the kind: {kind}"] * (more > 0)
        return lines
