"""What so few questions can say: sentences for whoever labels data of their own."""

from __future__ import annotations

import math
from collections.abc import Sequence

from lite.schema import Example

FEW_TO_TUNE = 30  # questions of dev below which the filter's threshold would be chance
FEW_TO_REPORT = 100  # questions of test from which on figures are within 10 points


def cautions(train: Sequence[Example], dev: Sequence[Example], test: Sequence[Example]) -> list[str]:
    """One sentence for each thing that these splits are too small for; none where they are large enough."""
    lines = []
    for name, examples in (("train", train), ("dev", dev), ("test", test)):
        if not examples:
            lines.append(
                f"No question of the split {name}: training needs all three splits. Label more (three at least, better "
                "a hundred or more)."
            )
    if 0 < len(dev) < FEW_TO_TUNE:
        lines.append(
            f"{_counted(dev, 'dev')}, fewer than {FEW_TO_TUNE}: no threshold is tuned on them; stage 1 ranks and keeps "
            "a fixed number of documents."
        )
    if 0 < len(test) < FEW_TO_REPORT:
        lines.append(f"{_counted(test, 'test')}: the report's figures are ± {margin(len(test))} points.")
    learnt = {i for example in train for i in example.relevant}
    known = sum(not learnt.isdisjoint(example.relevant) for example in test)
    if known:
        lines.append(
            f"{known} of {len(test)} test questions rest on a document that train questions rest on, too: the report "
            "says less about new documents."
        )
    return lines


def margin(questions: int) -> int:
    """Half of the 95 % interval of a share over so many questions, in points of 100, where it is widest."""
    return min(50, round(98 / math.sqrt(questions)))


def _counted(examples: Sequence[Example], split: str) -> str:
    return f"{len(examples)} {split} question{'s' * (len(examples) != 1)}"
