"""Loading: what is quantised, what stays, what trains, and what is said when it cannot be loaded."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import types
from pathlib import Path

import bitsandbytes as bnb
import pytest
import torch
from peft import get_peft_model
from PIL import Image

from lite.config.model import ModelConfig
from lite.models.fits import fit
from lite.models.inputs import encode
from lite.models.loading import choose_backend, load_model, lora_config
from lite.runs import TINY
from lite.schema import Document, LiteError
from lite.stages.prompts import stage1_prompt

TEXT = Document("t", "text", "Niger: geography", "Location: Western Africa.")
FLAG = Document("f", "image", "Flag of Niger", image=lambda: Image.new("RGB", (320, 240), "red"))


def prompt(document: Document) -> list[dict]:
    return stage1_prompt("What color is the flag of Niger?", document)


def test_language_layers_are_nf4_and_nothing_else(random_model) -> None:
    model, processor = random_model
    quantised = {name for name, module in model.named_modules() if isinstance(module, bnb.nn.Linear4bit)}
    assert len(quantised) == 7 * model.config.text_config.num_hidden_layers
    assert all("language_model.layers" in name for name in quantised)
    assert processor.tokenizer.padding_side == "left"


def test_adapter_has_gradients_after_a_forward_in_eval_mode(random_model) -> None:
    # On CPUs with AVX512-BF16, bitsandbytes would repack the weights in this first forward and lose every gradient.
    model, processor = random_model
    model = get_peft_model(model, lora_config(ModelConfig(), model))
    inputs = encode(processor, [prompt(FLAG), prompt(TEXT)], [FLAG, TEXT])
    model.eval()
    with torch.no_grad():
        model(**inputs)
    model.train()
    model(**inputs).logits.float().square().mean().backward()
    trained = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    assert len(trained) == 2 * 7 * model.config.text_config.num_hidden_layers
    assert all(weight.grad is not None for weight in trained.values())
    assert all(weight.grad.abs().sum() > 0 for name, weight in trained.items() if "lora_B" in name)


def test_linear4bit_never_takes_the_path_without_a_backward(random_model) -> None:
    model, _ = random_model
    layers = [module for module in model.modules() if isinstance(module, bnb.nn.Linear4bit)]
    assert not any(layer.support_avx512bf16_for_cpu for layer in layers)


def test_use_cpu_leaves_a_gpu_alone(random_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    model, _ = load_model(ModelConfig(model_name_or_path=str(random_folder), load_in_4bit=False), use_cpu=True)
    assert (model.device.type, model.dtype) == ("cpu", torch.float32)


def test_sixteen_bit_load_has_no_quantised_layer(random_folder: Path) -> None:
    model, _ = load_model(ModelConfig(model_name_or_path=str(random_folder), load_in_4bit=False))
    assert not any(isinstance(module, bnb.nn.Linear4bit) for module in model.modules())


def test_max_pixels_bounds_the_tokens_of_an_image(random_folder: Path) -> None:
    tokens = []
    for max_pixels in (16 * 16 * 4, 16 * 16 * 64):
        _, processor = load_model(ModelConfig(model_name_or_path=str(random_folder), max_pixels=max_pixels))
        inputs = encode(processor, [prompt(FLAG)], [FLAG])
        tokens.append(int(inputs["image_grid_thw"].prod()) // 4)
        assert tokens[-1] <= max_pixels / 16**2
    assert tokens[0] < tokens[1]


@pytest.mark.parametrize(
    ("prepare", "said"),
    [
        (lambda folder: (folder / "config.json").write_text('{"model_type": "gpt2"}'), "not a vision-language model"),
        (lambda folder: (folder / "config.json").unlink(), "config.json"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"short"), "folder"),
    ],
)
def test_broken_folder_is_one_sentence_and_a_way_on(tmp_path: Path, prepare, said: str) -> None:
    folder = tmp_path / "broken"
    shutil.copytree(TINY, folder)
    prepare(folder)
    with pytest.raises(LiteError, match=said) as caught:
        load_model(ModelConfig(model_name_or_path=str(folder)))
    assert str(folder) in str(caught.value)


def test_unknown_id_without_network_says_so() -> None:
    with pytest.raises(LiteError, match="nobody/nothing: it is neither a local folder nor can it be fetched"):
        load_model(ModelConfig(model_name_or_path="nobody/nothing"))


def test_unsloth_is_asked_for_by_name_and_its_errors_are_not_hidden(
    random_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    class FastVisionModel:
        @staticmethod
        def from_pretrained(path: str, **options: object):
            asked.append((path, options))
            raise ValueError("no such architecture")

    monkeypatch.setattr("lite.models.loading.torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("lite.models.loading.find_spec", lambda name: name == "unsloth")
    monkeypatch.setitem(sys.modules, "unsloth", types.SimpleNamespace(FastVisionModel=FastVisionModel))
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda **_: True)
    monkeypatch.delenv("UNSLOTH_COMPILE_DISABLE", raising=False)
    monkeypatch.delenv("UNSLOTH_DISABLE_STATISTICS", raising=False)
    with pytest.raises(LiteError, match="no such architecture"):
        load_model(ModelConfig(model_name_or_path=str(random_folder), backend="unsloth"))
    assert os.environ["UNSLOTH_COMPILE_DISABLE"] == os.environ["UNSLOTH_DISABLE_STATISTICS"] == "1"
    assert asked == [(str(random_folder), {"load_in_4bit": True, "use_gradient_checkpointing": True})]


def test_a_gpu_without_bfloat16_is_refused_before_anything_is_downloaded(
    monkeypatch: pytest.MonkeyPatch, random_folder: Path
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda including_emulation=True: including_emulation)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda: "Tesla T4")
    monkeypatch.setattr("lite.models.loading.give_up_early", lambda path: pytest.fail("the hub was asked"))
    with pytest.raises(LiteError, match=r"This GPU \(Tesla T4\) cannot compute in bfloat16"):
        load_model(ModelConfig(model_name_or_path="some/model"))
    monkeypatch.setattr("lite.models.fits.needed", lambda *_: pytest.fail("the hub was asked"))
    with pytest.raises(LiteError, match="Tesla T4"):
        fit(random_folder, "some/model")


def test_auto_takes_transformers_and_says_why_where_unsloth_could_be_had(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert choose_backend("auto") == "transformers"
    assert caplog.text == ""  # without a GPU there is nothing to choose
    monkeypatch.setattr("lite.models.loading.torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("lite.models.loading.find_spec", lambda name: name == "unsloth")
    assert choose_backend("auto") == "transformers"
    assert choose_backend("unsloth") == "unsloth"
    (record,) = caplog.records
    assert "not been tested on a GPU yet. --backend unsloth tries it" in record.message
    assert "\n" not in record.message


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_unsloth_without_a_gpu_is_refused_and_auto_falls_back() -> None:
    assert choose_backend("auto") == "transformers"
    with pytest.raises(LiteError, match="needs an NVIDIA GPU"):
        choose_backend("unsloth")


@pytest.mark.slow
@pytest.mark.skipif("LITE_UNSLOTH" not in os.environ, reason="LITE_UNSLOTH names no Python that has Unsloth")
def test_the_stacked_trainer_holds_under_unsloth_as_far_as_a_cpu_can_tell(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    command = [os.environ["LITE_UNSLOTH"], "-m", "pytest", "-q", "-p", "unsloth_on_cpu", "-p", "no:cacheprovider"]
    command += ["-c", str(root / "pyproject.toml"), "--rootdir", str(root), "-k", "unsloth"]
    paths = {"PYTHONPATH": os.pathsep.join([str(root), str(root / "tests")])}
    # In a folder of its own, where Unsloth leaves what it writes.
    done = subprocess.run(
        [*command, str(root / "tests" / "test_gpu.py")], env=os.environ | paths, cwd=tmp_path, capture_output=True,
        text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:]
    assert "6 passed" in done.stdout
