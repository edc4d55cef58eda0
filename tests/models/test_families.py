"""Every family: what is quantised and adapted, what may be generated, what a prompt's tokens are, what is refused."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import bitsandbytes as bnb
import numpy as np
import pytest
import torch
from peft import get_peft_model
from peft.tuners.lora import LoraLayer
from PIL import Image
from tiny_families import FAMILIES, REFUSED
from transformers import AutoConfig, Qwen3VLMoeConfig
from trl import GRPOTrainer
from trl.data_utils import prepare_multimodal_messages

from lite.config.model import ModelConfig
from lite.data.pools import Pair
from lite.models import families
from lite.models.adapters import base_fingerprint
from lite.models.inputs import encode, joined, vision_tokens
from lite.models.layers import check_reach, skeleton
from lite.models.loading import load_model, lora_config
from lite.runs import TINY
from lite.schema import Document, Example, LiteError
from lite.stages.filter import score
from lite.stages.prompts import stage1_prompt, stage2_prompt
from lite.train.stage1 import pair_prompts, prompt_lengths

QUESTION = "What is the capital of Chad?"
TEXT = Document("t", "text", "Chad", "The capital of Chad is N'Djamena.")


def noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8))


SMALL = Document("s", "image", "Flag", image=lambda: noise(96, 64))
TALL = Document("l", "image", "Map", "Its borders.", lambda: noise(120, 300))
# Linear layers of the language model that are too small to quantise and to adapt.
GATES, PER_LAYER = {"in_proj_a", "in_proj_b"}, {"input_gate", "projection", "model_projection"}
LEFT_OUT = {
    "qwen3_5": GATES, "qwen3_5_think": GATES, "gemma4": {f"per_layer_{name}" for name in PER_LAYER}
}  # fmt: skip


FAST = ("qwen3_vl", "qwen3_5_think", "smolvlm", "gemma3")


@pytest.fixture(
    scope="module", params=[pytest.param(name, marks=() if name in FAST else pytest.mark.slow) for name in FAMILIES]
)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def folder(name: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("families") / name
    FAMILIES[name](folder)
    return folder


@pytest.fixture(scope="module")
def loaded(folder: Path):
    """(model, processor) in NF4."""
    return load_model(ModelConfig(model_name_or_path=str(folder)))


@pytest.fixture(scope="module")
def in_full(folder: Path):
    """(model, processor) in float32."""
    return load_model(ModelConfig(model_name_or_path=str(folder), load_in_4bit=False))


def test_language_model_is_quantised_and_adapted_and_nothing_else(name: str, folder: Path, loaded, in_full) -> None:
    linears = {n for n, module in in_full[0].named_modules() if isinstance(module, torch.nn.Linear)}
    expected = {n for n in linears if re.search(r"\.(language|text)_model\.", n)}
    expected = {n for n in expected if n.rpartition(".")[2] not in LEFT_OUT.get(name, ())}
    outside = {"lm_head", *(n for n in linears if re.search("visual|vision|project|connector|merger", n))}
    assert len(expected) >= 14
    assert len(outside - expected) >= 8
    model, _ = load_model(ModelConfig(model_name_or_path=str(folder)))  # one of its own, since LoRA changes it
    assert {n for n, module in model.named_modules() if isinstance(module, bnb.nn.Linear4bit)} == expected
    adapted = get_peft_model(model, lora_config(ModelConfig(), model), adapter_name="stage1")
    found = {n for n, module in adapted.get_base_model().named_modules() if isinstance(module, LoraLayer)}
    assert found == expected
    assert base_fingerprint(adapted) == base_fingerprint(loaded[0]) == base_fingerprint(in_full[0])


def test_tokens_that_stand_for_pixels_cannot_be_generated(loaded) -> None:
    model, processor = loaded
    suppressed = set(processor.tokenizer.convert_ids_to_tokens(vision_tokens(model, processor)))
    of_pixels = {
        token for token in processor.tokenizer.get_added_vocab() if re.search(r"(?i)ima?ge?|vision|row_", token)
    }
    assert of_pixels - {"<|vision_pad|>"} <= suppressed
    assert not suppressed & {processor.tokenizer.eos_token, processor.tokenizer.bos_token, "<think>"}
    assert not suppressed & set(processor.tokenizer.convert_ids_to_tokens(model.generation_config.eos_token_id or []))


PROMPTS = [([TEXT], stage1_prompt(QUESTION, TEXT)), ([SMALL], stage1_prompt(QUESTION, SMALL))]
PROMPTS += [(d, stage2_prompt(QUESTION, d)) for d in ([TALL, TEXT, SMALL], [TEXT, TEXT], [SMALL, SMALL])]


def test_prompts_have_the_tokens_that_they_have_in_training(loaded) -> None:
    _, processor = loaded
    stub = SimpleNamespace(
        _is_vlm=True, environment_factories=None, processing_class=processor, tools=None, chat_template=None,
        chat_template_kwargs={},
    )  # fmt: skip
    for documents, prompt in PROMPTS:
        images = [document.load_image() for document in documents if document.image is not None]
        trained_on, _, _ = GRPOTrainer._tokenize_prompts(stub, [prepare_multimodal_messages(joined(prompt), images)])
        ids = encode(processor, [prompt], documents)["input_ids"][0].tolist()
        assert ids == list(trained_on[0])
        if (bos := processor.tokenizer.bos_token_id) is not None:
            assert (
                ids.count(bos) == 1 + (bos in processor.tokenizer.encode("<|im_start|>", add_special_tokens=False)) * 0
            )
        said = processor.tokenizer.decode(ids)
        for document in documents:  # a template that trims text parts must not glue words together
            assert document.image is not None or f"{document.title}\n{document.text}" in said


def test_lengths_are_measured_before_images_are_opened(name: str, loaded) -> None:
    _, processor = loaded
    example = Example("e", QUESTION, (TEXT, SMALL, TALL), ("t",), ("N'Djamena",))
    pairs = [Pair(example, document, relevant=False) for document in example.documents]
    expected = [encode(processor, [stage1_prompt(QUESTION, d)], [d])["input_ids"].shape[1] for d in example.documents]
    measured = prompt_lengths(*pair_prompts(pairs, 2000), processor)
    # Gemma's processor sets images off by line breaks, which a tokenizer may merge with those of the text around.
    assert np.abs(np.subtract(measured, expected)).max() <= (1 if name == "gemma3" else 0)


def test_each_prompt_gets_its_own_images(in_full) -> None:
    pairs = [(QUESTION, document) for document in (SMALL, TEXT, TALL)]
    one_by_one = np.concatenate([score(*in_full, [pair], 300) for pair in pairs])
    np.testing.assert_allclose(score(*in_full, pairs, 300), one_by_one, atol=1e-5)
    assert np.std(one_by_one) > 1e-3


@pytest.mark.parametrize("name", REFUSED, indirect=True)
def test_family_that_moves_images_is_refused_with_the_reason(name: str, tmp_path: Path) -> None:
    REFUSED[name](tmp_path)
    with pytest.raises(LiteError, match="moves images out of their place"):
        load_model(ModelConfig(model_name_or_path=str(tmp_path)))


def test_mixture_of_experts_is_refused_before_its_weights_are_read() -> None:
    dense = AutoConfig.from_pretrained(TINY)
    text = dense.text_config.to_dict() | {
        "model_type": "qwen3_vl_moe_text",
        "num_experts": 4,
        "moe_intermediate_size": 64,
    }
    config = Qwen3VLMoeConfig(text_config=text, vision_config=dense.vision_config.to_dict())
    with pytest.raises(LiteError, match=r"LoRA would miss .*experts"):
        check_reach(skeleton(config))


def test_template_that_does_not_open_the_answer_is_refused(tmp_path: Path) -> None:
    FAMILIES["internvl"](tmp_path)
    chat = tmp_path / "chat_template.jinja"
    chat.write_text(chat.read_text().partition("{% if add_generation_prompt %}")[0])
    with pytest.raises(LiteError, match="ignores add_generation_prompt"):
        load_model(ModelConfig(model_name_or_path=str(tmp_path)))


# ---- max_pixels ------------------------------------------------------------------------------------------------------


def pixels_read(processor, document: Document) -> int:
    """Pixels that the model is given for an image, after resizing and cutting into tiles."""
    values = encode(processor, [stage1_prompt(QUESTION, document)], [document])["pixel_values"]
    frames = getattr(processor.image_processor, "temporal_patch_size", None) or 1
    return values.numel() // 3 // frames


LARGE = Document("b", "image", "Large", image=lambda: noise(640, 500))
WIDE = Document("w", "image", "Wide", image=lambda: noise(600, 150))
# A budget that makes a difference, by family; None: it is refused.
BUDGETS = {
    "qwen3_vl": 4096, "qwen2_5_vl": 4096, "qwen2_vl": 4096, "qwen3_5": 4096, "qwen3_5_think": 4096,
    "smolvlm": 4096, "idefics3": 4096, "internvl": 3 * 4096, "gemma3": 4096, "gemma4": 80_000, "lfm2_vl": 4096,
}  # fmt: skip


def test_max_pixels_is_obeyed(name: str, folder: Path, loaded) -> None:
    budget = BUDGETS[name]
    _, processor = load_model(ModelConfig(model_name_or_path=str(folder), max_pixels=budget, load_in_4bit=False))
    read = [pixels_read(processor, document) for document in (LARGE, WIDE, SMALL, TALL)]
    assert max(read) <= budget
    before = [pixels_read(loaded[1], document) for document in (LARGE, WIDE, SMALL, TALL)]
    assert name == "gemma3" or max(before) > budget  # Gemma 3 has one size only
    if name.startswith("qwen"):
        return  # takes images of any size, also of more pixels than its processor's own limit
    _, processor = load_model(ModelConfig(model_name_or_path=str(folder), max_pixels=10**9, load_in_4bit=False))
    assert [pixels_read(processor, document) for document in (LARGE, WIDE, SMALL, TALL)] == before


def test_max_pixels_that_a_family_cannot_obey_is_refused(name: str, folder: Path) -> None:
    if name.startswith("qwen"):
        pytest.skip("takes images of any size")
    with pytest.raises(LiteError, match=r"max_pixels to \d+ or more"):
        load_model(ModelConfig(model_name_or_path=str(folder), max_pixels=100))


def test_max_pixels_of_an_unknown_family_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    FAMILIES["qwen3_vl"](tmp_path)
    monkeypatch.setattr(families, "FAMILIES", ())
    load_model(ModelConfig(model_name_or_path=str(tmp_path)))
    with pytest.raises(LiteError, match="does not know how images of qwen3_vl are limited"):
        load_model(ModelConfig(model_name_or_path=str(tmp_path), max_pixels=4096))
