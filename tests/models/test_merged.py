"""What a model samples with gives what its adapters give, up to rounding."""

from __future__ import annotations

import logging

import bitsandbytes as bnb
import pytest
import random_qwen
import torch

from lite.config.model import ModelConfig
from lite.models.adapters import activate, active, add_adapter
from lite.models.loading import lora_config
from lite.models.merged import choose_weights, sampling
from lite.runs import STAGE1, STAGE2


@pytest.fixture(scope="module", params=[True, False], ids=["4 bits", "16 bits"])
def model(request: pytest.FixtureRequest):
    """In bfloat16, as on a GPU, with two adapters in float32, as a trainer has them."""
    model = random_qwen.random_model(random_qwen.config_of("tiny"), "cpu", request.param, torch.bfloat16)
    for name in (STAGE1, STAGE2):
        model = add_adapter(model, lora_config(ModelConfig(), model), name)
    activate(model, [STAGE1, STAGE2], trainable=STAGE2)
    torch.manual_seed(1)
    for name, weight in model.named_parameters():
        if "lora_" in name:
            weight.data = weight.data.float()
        if "lora_B" in name:
            weight.data.normal_(std=0.05)
    return model.eval()


def logits(model) -> torch.Tensor:
    torch.manual_seed(0)
    ids = torch.randint(300, 2000, (2, 12))
    with torch.no_grad():
        return model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits.float()


def test_adapters_in_16_bits_say_what_they_say_in_32_and_leave_no_trace(model) -> None:
    with active(model, []):
        bare = logits(model)
    for names in ([STAGE1], [STAGE2], [STAGE1, STAGE2]):
        with active(model, names):
            expected = logits(model)
            with sampling(model):
                half = logits(model)
            assert torch.equal(logits(model), expected)
        assert 0 < (half - expected).abs().mean() < 0.1 * (expected - bare).abs().mean()
    with active(model, []), sampling(model):
        assert torch.equal(logits(model), bare)
    with pytest.raises(RuntimeError, match="halfway"), sampling(model):
        raise RuntimeError("halfway")
    assert not any("forward" in vars(module) for module in model.modules())


def test_merged_weights_say_what_packed_ones_say_and_read_none_of_them(model, monkeypatch) -> None:
    packed = any(isinstance(module, bnb.nn.Linear4bit) for module in model.modules())
    expected = logits(model)
    with active(model, []):
        bare = logits(model)
    monkeypatch.setattr(bnb, "matmul_4bit", lambda *_, **__: pytest.fail("a packed weight was read"))
    if packed:
        with sampling(model, "merged"):
            merged = logits(model)
        assert (merged - expected).abs().mean() < 0.1 * (expected - bare).abs().mean()
    assert not any("forward" in vars(module) for module in model.modules())


def test_weights_are_merged_where_half_of_free_memory_takes_them(
    model, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    packed = [module for module in model.modules() if isinstance(module, bnb.nn.Linear4bit)]
    takes = 2 * sum(layer.in_features * layer.out_features for layer in packed)
    for free, room in ((2 * takes, bool(packed)), (2 * takes - 1, False)):
        monkeypatch.setattr("lite.models.merged.free_ram", lambda free=free: free)
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            assert choose_weights(model, "auto") == ("merged" if room else "packed")
            assert choose_weights(model, "packed") == "packed"
            assert caplog.records == []
            assert choose_weights(model, "merged") == ("merged" if room else "packed")
        assert len(caplog.records) == bool(packed and not room)


def test_a_cpu_in_float32_merges_exactly_whatever_is_asked(random_model) -> None:
    model, _ = random_model
    assert choose_weights(model, "merged") == "packed"
