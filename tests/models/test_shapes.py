"""What memory depends on, measured on models without weights: the same that real ones of every family show."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import get_peft_model
from PIL import Image
from tiny_families import FAMILIES
from transformers import DynamicCache

from lite.config.model import ModelConfig
from lite.config.runs import Stage2Config
from lite.models import families, shapes
from lite.models.inputs import image_tokens
from lite.models.layers import language_layers
from lite.models.loading import load_model, lora_config
from lite.models.memory import run_estimate
from lite.models.published import PUBLISHED
from lite.models.shapes import shape_of
from lite.schema import LiteError
from lite.train import auto_fit

FAST = ("qwen3_5", "smolvlm", "gemma4")


@pytest.fixture(
    scope="module", params=[pytest.param(name, marks=() if name in FAST else pytest.mark.slow) for name in FAMILIES]
)
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    """(folder, model, processor)"""
    folder = tmp_path_factory.mktemp("shapes") / request.param
    FAMILIES[request.param](folder)
    return folder, *load_model(ModelConfig(model_name_or_path=str(folder), load_in_4bit=False))


def test_shape_is_that_of_the_loaded_model(family) -> None:
    folder, model, processor = family
    shape = shape_of(str(folder))
    assert shape.quantised() == sum(layer.weight.numel() for layer in language_layers(model).values())
    assert shape.quantised() + shape.others == sum(weight.numel() for weight in model.parameters())
    ids = torch.full((1, 50), 300)
    cache = DynamicCache(config=model.config.get_text_config())
    with torch.no_grad():
        model.get_decoder()(input_ids=ids, past_key_values=cache, use_cache=True)
    held = [layer for layer in cache.layers if getattr(layer, "keys", None) is not None]
    kept = sum(min(50, layer.sliding_window - 1 if layer.is_sliding else 50) for layer in held)
    assert kept == sum(layer.keys.shape[2] for layer in held)
    assert sum(layer.keys.numel() + layer.values.numel() for layer in held) == pytest.approx(shape.cache(50), rel=0.04)
    states = [states for layer in cache.layers for states in getattr(layer, "recurrent_states", {}).values()]
    assert (shape.recurrent_heads > 0) == any(state is not None for state in states)
    side = 448
    tokens = image_tokens(processor, side, side)
    read = processor.image_processor(Image.new("RGB", (side, side)), return_tensors="pt")["pixel_values"].numel() // 3
    frames = getattr(processor.image_processor, "temporal_patch_size", None) or 1
    # markers around tiles come on top
    assert read / frames / shape.token_pixels == pytest.approx(tokens, rel=0.6)
    adapter = get_peft_model(model, lora_config(ModelConfig(lora_r=4), model), adapter_name="stage1")
    assert shape.adapter(4) == sum(weight.numel() for weight in adapter.parameters() if weight.requires_grad)
    adapter.unload()


def test_every_family_has_an_estimate(family, tmp_path: Path) -> None:
    config = Stage2Config(output_dir=str(tmp_path), use_cpu=True, bf16=False)
    shape = shape_of(str(family[0]))
    settings = ModelConfig(max_pixels=512 * 512)
    short, long = (run_estimate(shape, config, settings, tokens, 2, 2) for tokens in (500, 4000))
    assert all(value > 0 for value in short.values())
    assert short["peak"] < long["peak"]
    assert short["generation: KV cache"] < long["generation: KV cache"]


def test_undescribed_family_has_none(family, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(families, "FAMILIES", ())
    assert shape_of(str(family[0])) is None


@pytest.mark.parametrize(
    ("name", "billions"),
    [("Qwen3.5-0.8B", 0.87), ("Qwen3.5-4B", 4.54), ("SmolVLM2-500M", 0.51), ("SmolVLM2-256M", 0.26)],
)
def test_published_shapes_have_the_size_that_their_names_say(name: str, billions: float) -> None:
    shape = shape_of(f"somebody/{name}-Instruct")
    assert (shape.quantised() + shape.others) / 1e9 == pytest.approx(billions, rel=0.03)


def test_published_shapes_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    first = shape_of("Qwen/Qwen3-VL-2B-Instruct")
    monkeypatch.setattr(shapes, "shape_of_config", lambda config: pytest.fail("again"))
    assert shape_of("Qwen/Qwen3-VL-2B-Instruct") is first
    assert len(PUBLISHED) > 5


def test_model_that_cannot_be_loaded_is_refused_before_its_download(tmp_path: Path, monkeypatch, caplog) -> None:
    config = Stage2Config(output_dir=str(tmp_path), use_cpu=True, bf16=False)
    settings = ModelConfig(model_name_or_path="Qwen/Qwen3.5-4B")
    monkeypatch.setattr(auto_fit, "free_ram", lambda: 2**32)
    with pytest.raises(LiteError, match=r"Qwen3.5-4B and its adapters take [56]\.\d GiB, and 4\.0 GiB .* are free"):
        auto_fit.check_size(config, settings, 2)
    monkeypatch.setattr(auto_fit, "free_ram", lambda: 2**34)
    auto_fit.check_size(config, settings, 2)
    auto_fit.check_size(config, ModelConfig(model_name_or_path="nobody/unknown"), 2)
    # a GPU that holds the weights, but not the longest prompts
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(auto_fit, "free_memory", lambda: 6 * 2**30)
    monkeypatch.setattr(auto_fit, "card_gib", lambda: 6.0)
    config.use_cpu = False
    auto_fit.check_size(config, settings, 2)
    assert "training may take" in caplog.text
