"""What answers the questions of an evaluation: transformers in this process, or vLLM. `on_ray` spreads either."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from rich.console import Console

from lite.config.model import ModelConfig
from lite.evaluate.answers import Budget, answer_examples
from lite.evaluate.scores import stage1_scores
from lite.models.adapters import active, load_stack
from lite.models.loading import load_model
from lite.runs import read_card, tuned_card
from lite.schema import Example, Trace
from lite.stages.answer import say

# (examples, file that traces are appended to as they come, where progress goes) -> a trace per example
Answer = Callable[[Sequence[Example], Path | None, Console], list[Trace]]


def transformers_engine(model_config: ModelConfig, stage1: Path, stage2: Path, batch_size: int) -> Answer:
    """Load the model with both adapters.

    Raises:
        LiteError: The adapters do not fit together, or the model cannot be loaded.
    """
    cards = usable_cards(stage1, stage2)
    base, processor = load_model(model_config)
    model = load_stack(base, stage1, stage2)

    def answer(examples: Sequence[Example], path: Path | None, console: Console) -> list[Trace]:
        scores = stage1_scores(model, processor, examples, cards[0], batch_size, console)
        with active(model, cards[1]["active"]):
            ask = partial(say, model, processor)
            return answer_examples(ask, examples, scores, budget(*cards, batch_size), path, console)

    return answer


def budget(stage1: dict, stage2: dict, batch_size: int) -> Budget:
    """What the cards of two adapters say about filter and prompt."""
    return Budget(
        stage1["threshold"], stage1["max_kept"], stage2["max_documents"], stage2["document_chars"],
        stage2["max_completion_length"], batch_size, stage2.get("quotes", False),
    )  # fmt: skip


def usable_cards(stage1: Path, stage2: Path) -> tuple[dict, dict]:
    """The cards of both adapters, which `find_adapters` has found to belong together."""
    return tuned_card(stage1), read_card(stage2)
