"""How long a report will take, by the pace of its first batches."""

from __future__ import annotations

import io

import pytest

from lite.console import Console
from lite.evaluate.pace import duration, tell_pace


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr("lite.evaluate.pace.time.monotonic", lambda: now[0])
    return now


def told(clock: list[float], steps: list[tuple[float, int]], total: int) -> str:
    out = io.StringIO()
    advance = tell_pace(Console(file=out, width=200), "Report", total)
    for seconds, count in steps:
        clock[0] += seconds
        advance(count)
    return out.getvalue()


def test_a_slow_first_batch_tells(clock: list[float]) -> None:
    steps = [(128.0, 128), (1.0, 128)]
    assert told(clock, steps, 11_580) == "Report: about 3 h 11 min for 11,580, by the pace of the first 128.\n"


def test_a_first_batch_that_only_warms_up_does_not(clock: list[float]) -> None:
    assert told(clock, [(10.0, 100), (1.0, 100), (9.0, 100)], 1000).startswith("Report: about 8 s for 1,000")


def test_nothing_is_told_at_the_end_or_of_nothing(clock: list[float]) -> None:
    assert told(clock, [(1.0, 5), (1.0, 5)], 10) == ""
    assert told(clock, [(30.0, 10)], 10) == ""
    assert told(clock, [(1.0, 0), (1.0, 0)], 10) == ""


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.1, "about 1 s"),
        (89, "about 89 s"),
        (91, "about 2 min"),
        (5400, "about 1 h 30 min"),
        (36_000, "about 10 h 00 min"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text
