"""What stage 1 passes on where nothing was tuned, and single answers by prompt lookup."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tiny_families import FAMILIES

from lite.config.model import ModelConfig
from lite.data.sources import load_examples
from lite.models import lookup
from lite.models.adapters import activate
from lite.models.layers import base_of
from lite.models.loading import load_model
from lite.rag import Rag
from lite.runs import SHIPPED
from lite.schema import Document
from lite.stages.answer import arrange, fused, say, say_streaming, select


@settings(deadline=None, max_examples=300)
@given(st.integers(1, 20).flatmap(lambda n: st.permutations(range(n))))
def test_untrained_filter_drops_neither_its_best_nor_that_of_search(search: list[int]) -> None:
    scores = np.linspace(0.9, 0.1, len(search))
    kept, dropped = select(scores, None, len(search), 5, search)
    assert len(kept) == min(5, len(search))
    assert {0, search.index(0)} <= set(kept)
    assert dropped == []
    order = fused(scores, search)
    assert kept == sorted(range(len(search)), key=lambda i: -order[i])[:5]


def test_search_counts_only_where_nothing_was_tuned() -> None:
    scores = np.array([0.1, 0.9, 0.6, 0.7])
    assert select(scores, 0.5, 4, 2, [0, 1, 2, 3]) == ([1, 3], [2])
    assert select(scores, None, 4, 2) == ([1, 3], [])


# ---- prompt lookup ---------------------------------------------------------------------------------------------------


@contextmanager
def forwards(model) -> Iterator[list[int]]:
    """Tokens of each forward pass."""
    seen: list[int] = []
    decoder = base_of(model).get_decoder()
    hook = decoder.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["inputs_embeds"].shape[1]), with_kwargs=True
    )
    try:
        yield seen
    finally:
        hook.remove()


@pytest.fixture(scope="module")
def rag() -> Rag:
    rag = Rag.load(SHIPPED)
    activate(rag.model, rag.stage2["active"])
    return rag


def test_answers_are_the_same_after_fewer_passes(rag: Rag, monkeypatch: pytest.MonkeyPatch) -> None:
    listings = [arrange(e.question, e.documents[:6]) for e in load_examples("flags", "test", 3)]
    with forwards(rag.model) as with_lookup:
        said = [say(rag.model, rag.processor, [listing], *rag._limits())[0] for listing in listings]
    monkeypatch.setattr(lookup, "SETTINGS", {})
    with forwards(rag.model) as without:
        assert [say(rag.model, rag.processor, [listing], *rag._limits())[0] for listing in listings] == said
    assert all("<answer>" in text for text in said)
    assert len(with_lookup) < 0.6 * len(without)


def test_streaming_gives_the_same_and_stops(rag: Rag) -> None:
    listing = arrange(*next((e.question, e.documents[:6]) for e in load_examples("flags", "test", 1)))
    pieces = list(say_streaming(rag.model, rag.processor, listing, *rag._limits()))
    assert len(pieces) > 10
    assert ["".join(pieces)] == say(rag.model, rag.processor, [listing], *rag._limits())
    with forwards(rag.model) as seen:
        stream = say_streaming(rag.model, rag.processor, listing, *rag._limits())
        next(stream)
        stream.close()
    assert len(seen) <= 8


DOCUMENTS = [
    Document("a", "text", "Chad", "The capital of Chad is N'Djamena. The capital of Chad is N'Djamena."),
    Document("b", "image", "Flag", image=lambda: Image.new("RGB", (80, 60), "red")),
]
FAST = ("smolvlm", "qwen3_5", "gemma3")


@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n in FAST else pytest.mark.slow) for n in FAMILIES])
def test_every_family_says_the_same_or_goes_without(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    FAMILIES[name](tmp_path)
    model, processor = load_model(ModelConfig(model_name_or_path=str(tmp_path), load_in_4bit=False))
    looks_up = bool(lookup.lookup_settings(model))
    assert looks_up == (name not in ("gemma3", "gemma4", "qwen3_5", "qwen3_5_think", "lfm2_vl"))
    listing = arrange("What is the capital of Chad?", DOCUMENTS)
    (said,) = say(model, processor, [listing], 300, 40)
    assert "".join(say_streaming(model, processor, listing, 300, 40)) == said
    monkeypatch.setattr(lookup, "SETTINGS", {})
    assert say(model, processor, [listing], 300, 40) == [said]


def test_16_bits_go_without() -> None:
    model, _ = load_model(ModelConfig(load_in_4bit=False))
    assert lookup.lookup_settings(model)
    assert not lookup.lookup_settings(model.to(torch.bfloat16))
