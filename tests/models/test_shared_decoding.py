"""Positions that are replayed as a graph is, and drawn without waiting, say what the plain loop says."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

import decoding
import pytest
import torch
from random_qwen import config_of, random_model, random_processor, random_row
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_unflatten
from transformers import GenerationConfig

from lite.config.model import ModelConfig
from lite.models import shared_decoding, shared_prompt
from lite.models.adapters import activate, add_adapter
from lite.models.inputs import vision_tokens
from lite.models.loading import lora_config
from lite.models.merged import sampling
from lite.runs import STAGE1, STAGE2

PIXELS = 64 * 64


class Tape(TorchDispatchMode):
    """Records every operation once and repeats the flat list: what a CUDA graph does, on a CPU.

    A number that was read from a tensor, a tensor that was made anew from the host's data, or a shape that should have
    grown is repeated as it was, so that whatever would spoil a graph spoils this.
    """

    def __init__(self):
        super().__init__()
        self.operations, self.places, self.kept = [], {}, []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        flat, spec = tree_flatten((args, kwargs or {}))
        sources = [(self.places.get(id(x)), x) if isinstance(x, torch.Tensor) else (None, x) for x in flat]
        out = function(*args, **(kwargs or {}))
        targets = []
        for result in tree_flatten(out)[0]:
            if isinstance(result, torch.Tensor) and id(result) not in self.places:
                self.places[id(result)] = len(self.kept)
                self.kept.append(result)
            targets.append(self.places.get(id(result)))
        self.operations.append((function, sources, spec, targets))
        return out

    def replay(self, result: int) -> torch.Tensor:
        values: list = [None] * len(self.kept)
        for function, sources, spec, targets in self.operations:
            args, kwargs = tree_unflatten([x if place is None else values[place] for place, x in sources], spec)
            for target, out in zip(targets, tree_flatten(function(*args, **kwargs))[0], strict=True):
                if target is not None:
                    values[target] = out
        return values[result]


tapes: list[Tape] = []


def record(run: Callable[[], torch.Tensor]) -> Callable[[], torch.Tensor]:
    tape = Tape()
    with tape:
        result = run()
    tapes.append(tape)
    return lambda: tape.replay(tape.places[id(result)])


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict]:
    """Where a test says how a CPU captures. It looks for ends as seldom as a GPU."""
    capturing: dict = {}
    monkeypatch.setattr(shared_decoding, "CAPTURING", capturing)
    monkeypatch.setattr(shared_decoding, "CHECKED_EVERY", {"cpu": 16})
    tapes.clear()
    return capturing


def model_of(dtype: torch.dtype, adapters: int):
    """In NF4, with adapters that do something."""
    model = random_model(config_of("tiny"), "cpu", True, dtype)
    names = [STAGE1, STAGE2][:adapters]
    for name in names:
        model = add_adapter(model, lora_config(ModelConfig(), model), name)
    if names:
        activate(model, names, trainable=names[-1])
        torch.manual_seed(1)
        for name, weight in model.named_parameters():
            if "lora_" in name:
                weight.data = weight.data.float()
            if "lora_B" in name:
                weight.data.normal_(std=0.05)
    shared_prompt.prepare(model)
    return model.eval()


def prompts(dtype: torch.dtype, images: list[int]) -> tuple[torch.Tensor, torch.Tensor, list]:
    """Prompts of different lengths with so many images each, left-padded."""
    processor = random_processor(PIXELS)
    encoded = []
    for row, count in enumerate(images):
        drawn = random_row(processor, 40 + 25 * row, count, PIXELS, row)
        text = processor.apply_chat_template(drawn["prompt"], add_generation_prompt=True, tokenize=False)
        encoded.append(processor(text=[text], images=drawn["images"] or None, return_tensors="pt"))
    vision = [
        {name: value.to(dtype) if value.is_floating_point() else value for name, value in of_prompt.items()}
        for of_prompt in map(shared_prompt.of_images, encoded)
    ]
    longest = max(fields["input_ids"].shape[1] for fields in encoded)
    ids = torch.zeros(len(images), longest, dtype=torch.long)
    for row, fields in zip(ids, encoded, strict=True):
        row[-fields["input_ids"].shape[1] :] = fields["input_ids"][0]
    return ids, (ids != 0).long(), vision


def generated(
    model, inputs: tuple, ends: int, new: int = 40, sampled: bool = True, cache: str | None = None
) -> torch.Tensor:
    settings = GenerationConfig(
        max_new_tokens=new, do_sample=sampled, cache_implementation=cache, top_k=0, pad_token_id=0,
        eos_token_id=[2, *range(300, 300 + ends)],
        suppress_tokens=vision_tokens(model, random_processor(PIXELS)),
    )  # fmt: skip
    torch.manual_seed(7)
    with torch.no_grad(), sampling(model):
        return shared_prompt.generate(model, *inputs, 4, settings)


@pytest.mark.parametrize(
    ("dtype", "images", "adapters"),
    [
        (torch.bfloat16, [1, 0], 2),
        pytest.param(torch.float32, [1, 0, 2], 2, marks=pytest.mark.slow),
        pytest.param(torch.bfloat16, [0], 0, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_replayed_positions_say_what_the_loop_says(
    graphs: dict, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, images: list[int], adapters: int
) -> None:
    model, inputs = model_of(dtype, adapters), prompts(dtype, images)
    for ends, sampled in ((60, True), (700, True), (200, False)):
        graphs.clear()
        monkeypatch.setattr(shared_decoding, "CHECKED_EVERY", {})
        expected = generated(model, inputs, ends, sampled=sampled)
        monkeypatch.setattr(shared_decoding, "CHECKED_EVERY", {"cpu": 16})
        assert torch.equal(generated(model, inputs, ends, sampled=sampled), expected)
        graphs["cpu"] = record
        assert torch.equal(generated(model, inputs, ends, sampled=sampled), expected)
        if ends == 700:  # all end long before the last position
            assert expected.shape[1] < 30
    assert len(tapes) == 3
    read = {function._schema.name for tape in tapes for function, *_ in tape.operations}
    assert not read & {"aten::_local_scalar_dense", "aten::nonzero", "aten::lift_fresh", "aten::is_nonzero"}


def test_prompts_in_a_static_cache_are_decoded_alike(graphs: dict) -> None:
    """Unsloth forces one on `generate`."""
    model, inputs = model_of(torch.float32, 0), prompts(torch.float32, [1, 0])
    assert torch.equal(generated(model, inputs, 60, 8, cache="static"), generated(model, inputs, 60, 8))


def test_short_answers_are_worth_no_graph(graphs: dict) -> None:
    graphs["cpu"] = record
    generated(model_of(torch.float32, 0), prompts(torch.float32, [0]), 0, new=3)
    assert not tapes


@pytest.mark.parametrize("fault", ["raises", "stale", "not finite"])
def test_a_graph_that_fails_leaves_the_loop_and_one_sentence(
    graphs: dict, caplog: pytest.LogCaptureFixture, fault: str
) -> None:
    def capture(run: Callable[[], torch.Tensor]) -> Callable[[], torch.Tensor]:
        first = run()
        if fault == "raises":
            raise RuntimeError("operation not permitted when stream is capturing\nand more")
        return lambda: first if fault == "stale" else first * torch.nan

    model, inputs = model_of(torch.float32, 0), prompts(torch.float32, [0])
    expected = generated(model, inputs, 700)
    graphs["cpu"] = capture
    with caplog.at_level(logging.WARNING):
        assert torch.equal(generated(model, inputs, 700), expected)
        assert torch.equal(generated(model, inputs, 700), expected)
    (said,) = [record.getMessage() for record in caplog.records if "CUDA graph" in record.getMessage()]
    assert "\n" not in said
    assert graphs == {}  # not tried again


def test_probabilities_that_are_not_finite_are_refused_at_the_next_look(graphs: dict) -> None:
    model = model_of(torch.float32, 0)
    model.lm_head.weight.data[5] = torch.nan
    with pytest.raises(RuntimeError, match="inf"):
        generated(model, prompts(torch.float32, [0]), 0)


def test_a_position_is_one_launch_and_waits_for_nothing(graphs: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_decoding, "WORTH_A_GRAPH", 1)
    monkeypatch.setattr(decoding, "FEW", 3)
    monkeypatch.setattr(decoding, "MANY", 5)  # no look in between
    counted = decoding.per_position(decoding.graph_loop, 2)
    assert counted == decoding.per_position(decoding.graph_loop, 0)
    assert counted["operations"] < 50
    assert counted["waits"] == 0
