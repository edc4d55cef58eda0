"""The memory estimate against models that are built without memory, and against the recipes' cards."""

from itertools import pairwise
from pathlib import Path

import pytest
import torch
from bitsandbytes.functional import quantize_4bit
from peft import get_peft_model
from transformers import BertConfig, Qwen3VLConfig, Qwen3VLForConditionalGeneration

from lite.config.model import ModelConfig
from lite.config.parse import parse
from lite.config.runs import Stage1Config, Stage2Config
from lite.models.loading import lora_config
from lite.models.memory import GIB, HALF, NF4_BYTES, USABLE, estimate, run_estimate
from lite.models.shapes import shape_of, shape_of_config

RECIPES = Path(__file__).parents[2] / "recipes"
CARDS = {"qwen3-vl-2b": 8, "qwen3-vl-4b": 24, "qwen3-vl-8b": 24, "qwen3.5-4b": 24}

# config.json of Qwen/Qwen3-VL-*-Instruct: (hidden, ff, layers, heads, tied), (vision depth, hidden, ff, deepstack)
SIZES = {
    "2B": ((2048, 6144, 28, 16, True), (24, 1024, 4096, [5, 11, 17])),
    "4B": ((2560, 9728, 36, 32, True), (24, 1024, 4096, [5, 11, 17])),
    "8B": ((4096, 12288, 36, 32, False), (27, 1152, 4304, [8, 16, 24])),
}
LOAD = {"prompt_tokens": 600, "image_tokens": 256, "completion_tokens": 4}
LOAD |= {"generation_batch": 32, "train_batch": 8, "lora_r": 16}


def published(size):
    (hidden, ff, layers, heads, tied), (depth, width, vision_ff, deepstack) = SIZES[size]
    text = {"hidden_size": hidden, "intermediate_size": ff, "num_hidden_layers": layers, "num_attention_heads": heads}
    vision = {"depth": depth, "hidden_size": width, "intermediate_size": vision_ff, "out_hidden_size": hidden}
    vision |= {"num_heads": 16, "patch_size": 16, "spatial_merge_size": 2, "temporal_patch_size": 2}
    vision |= {"num_position_embeddings": 2304, "deepstack_visual_indexes": deepstack}
    text |= {"num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151_936, "tie_word_embeddings": tied}
    return Qwen3VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=tied)


def small():
    config = published("2B")
    text, vision = config.text_config, config.vision_config
    text.hidden_size, text.intermediate_size, text.num_hidden_layers, text.vocab_size = 48, 80, 3, 320
    text.num_attention_heads, text.num_key_value_heads, text.head_dim = 4, 2, 20
    vision.depth, vision.hidden_size, vision.out_hidden_size, vision.intermediate_size = 2, 32, 48, 64
    vision.deepstack_visual_indexes = [0]
    return config


def on_meta(config):
    with torch.device("meta"):
        model = Qwen3VLForConditionalGeneration(config)
    model.tie_weights()
    return model


def shape_in(config, folder):
    config.save_pretrained(folder)
    return shape_of(str(folder))


def weights(shape, **changes):
    return estimate(shape, **LOAD | changes, load_in_4bit=False)["weights"] * GIB / HALF


@pytest.mark.parametrize(("size", "billions"), [("2B", 2.13), ("4B", 4.44), ("8B", 8.77)])
def test_weights_are_those_of_the_real_model(size, billions):
    real = sum(parameter.numel() for parameter in on_meta(published(size)).parameters())
    assert real / 1e9 == pytest.approx(billions, abs=0.01)
    assert weights(shape_of(f"unsloth/Qwen3-VL-{size}-Instruct-unsloth-bnb-4bit")) == pytest.approx(real, rel=0.02)


@pytest.mark.parametrize("size", SIZES)
def test_shape_read_from_a_folder_is_the_published_one(size, tmp_path):
    assert shape_in(published(size), tmp_path) == shape_of(f"Qwen/Qwen3-VL-{size}-Instruct")


@pytest.mark.parametrize("rank", [1, 16])
def test_adapter_has_as_many_weights_as_pefts(rank, tmp_path):
    config = small()
    model = on_meta(config)
    model = get_peft_model(model, lora_config(ModelConfig(lora_r=rank), model))
    real = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    shape = shape_in(config, tmp_path)
    one, two = (estimate(shape, **LOAD | {"lora_r": rank}, adapters=n)["adapters and optimiser"] for n in (1, 2))
    assert round((two - one) * GIB / 4) == real > 0
    assert round(one * GIB / (4 + 4 + 8)) == real


def test_nf4_takes_what_bitsandbytes_takes():
    weight = torch.randn(1024, 1024)
    packed, state = quantize_4bit(weight, quant_type="nf4", compress_statistics=True)
    stored = packed.nbytes + state.absmax.nbytes + state.state2.absmax.nbytes
    assert stored / weight.numel() == pytest.approx(NF4_BYTES, rel=1e-3)


@pytest.fixture
def shape():
    return shape_of("Qwen3-VL-4B")


@pytest.mark.parametrize(
    ("setting", "component"),
    [
        ("prompt_tokens", "generation: KV cache"),
        ("prompt_tokens", "training: activations"),
        ("generation_batch", "generation: KV cache"),
        ("generation_batch", "generation: prefill"),
        ("train_batch", "training: activations"),
        ("train_batch", "training: one layer"),
        ("train_batch", "training: logits"),
        ("completion_tokens", "training: logits"),
        ("lora_r", "adapters and optimiser"),
        ("adapters", "adapters and optimiser"),
        ("adam_bytes", "adapters and optimiser"),
    ],
)
def test_components_grow_with_what_they_hold(shape, setting, component):
    start = LOAD.get(setting, {"adapters": 1, "adam_bytes": 2}.get(setting))
    estimates = [estimate(shape, **LOAD | {setting: start * factor}) for factor in (1, 2, 4)]
    assert all(less[component] < more[component] for less, more in pairwise(estimates))
    assert all(less["peak"] <= more["peak"] for less, more in pairwise(estimates))


def test_four_bits_take_less_than_sixteen(shape):
    four, sixteen = (estimate(shape, **LOAD, load_in_4bit=bits) for bits in (True, False))
    assert four["4-bit weights"] < sixteen["weights"] / 2
    assert four["peak"] < sixteen["peak"]


def test_checkpointing_saves_activations(shape):
    on, off = (estimate(shape, **LOAD, checkpointing=checkpointing) for checkpointing in (True, False))
    assert on["training: activations"] < off["training: activations"] / 4


def test_kv_cache_by_hand():
    config = small()
    config.text_config.head_dim, config.text_config.num_key_value_heads = 10, 2
    shape = shape_of_config(config)
    cache = estimate(shape, **LOAD | {"prompt_tokens": 7, "completion_tokens": 3, "generation_batch": 5})
    # layers x keys and values x heads x head_dim x bytes, for 5 x 10 tokens
    assert round(cache["generation: KV cache"] * GIB) == 3 * 2 * 2 * 10 * 2 * 50


def test_peak_counts_the_larger_of_generation_and_training(shape):
    for changes, larger in (({"generation_batch": 1, "train_batch": 32}, "training"), ({}, "generation")):
        memory = estimate(shape, **LOAD | changes)
        always = memory["4-bit weights"] + memory["adapters and optimiser"] + memory["CUDA context"]
        generation = memory["generation: KV cache"] + memory["generation: prefill"]
        training = memory["training: activations"] + max(memory["training: one layer"], memory["training: logits"])
        assert (training > generation) == (larger == "training")
        assert memory["peak"] == pytest.approx(always + max(generation, training))


def test_every_qwen_recipe_has_a_card():
    assert {path.parent.name for path in RECIPES.glob("qwen*/stage1.yaml")} == set(CARDS)


def recipe_estimate(profile, stage):
    """(settings of the recipe, its estimate) for the longest prompts that it lets through."""
    path = RECIPES / profile / f"stage{stage}.yaml"
    config_class = Stage1Config if stage == 1 else Stage2Config
    config, model_config = parse(config_class, "test", ["--config", str(path), "--use_cpu=true"])
    shape, images = shape_of(model_config.model_name_or_path), config.max_documents if stage == 2 else 1
    return config, model_config, run_estimate(shape, config, model_config, config.max_prompt_tokens, images, stage)


@pytest.mark.parametrize("stage", [1, 2])
@pytest.mark.parametrize(("profile", "gib"), CARDS.items())
def test_recipe_fits_its_card(profile, gib, stage):
    _, _, memory = recipe_estimate(profile, stage)
    assert memory["peak"] <= USABLE * gib
    assert memory["weights" if profile == "qwen3.5-4b" else "4-bit weights"] < memory["peak"]


def test_default_recipe_leaves_room_and_sees_six_images():
    config, model_config, memory = recipe_estimate("qwen3-vl-4b", 2)
    assert memory["peak"] <= 20
    assert config.max_documents >= 6
    assert config.num_generations >= 8
    assert model_config.max_pixels >= 512 * 512
    # six images, six texts' worth of captions, question and instruction
    assert config.max_prompt_tokens >= 6 * (256 + 60) + 200


def test_estimate_of_a_run_is_that_of_its_settings():
    config, model_config, memory = recipe_estimate("qwen3-vl-8b", 2)
    assert memory == estimate(
        shape_of("Qwen3-VL-8B"), prompt_tokens=4096, image_tokens=6 * 256, completion_tokens=512, generation_batch=16,
        train_batch=8, lora_r=16, group=8, adapters=2, adam_bytes=2,
    )  # fmt: skip
    config.shared_prompt = False
    repeated = run_estimate(shape_of("Qwen3-VL-8B"), config, model_config, 4096, 6, 2)
    assert repeated["training: activations"] > 2 * memory["training: activations"]


def test_other_models_have_no_shape(tmp_path):
    BertConfig().save_pretrained(tmp_path)
    assert shape_of(str(tmp_path)) is None
    assert shape_of("nobody/no-such-model") is None
    assert shape_of("Qwen/Qwen3-VL-32B-Instruct") is None
