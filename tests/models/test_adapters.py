"""Stacked adapters: which act, which learn, what is saved, and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import bitsandbytes as bnb
import pytest
import torch
from datasets import Dataset
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor, BitsAndBytesConfig
from trl import GRPOTrainer

from lite.config.model import ModelConfig
from lite.config.runs import StageConfig
from lite.models.adapters import (
    activate,
    active,
    adapter_hash,
    add_adapter,
    base_fingerprint,
    copy_weights,
    load_stack,
    load_weights,
    save_adapter,
)
from lite.models.inputs import vision_tokens
from lite.models.layers import kept_in_16bit, skeleton
from lite.models.loading import load_model, lora_config
from lite.models.merged import merged
from lite.runs import SHIPPED, STAGE1, STAGE2, find_adapters, read_card, stage1_of, trained_profile, write_card
from lite.schema import LiteError
from lite.train.trainer import StageTrainer

BOTH = [STAGE1, STAGE2]


def fill(model: PeftModel, name: str, seed: int) -> None:
    """Give an adapter weights that do something."""
    generator = torch.Generator().manual_seed(seed)
    for parameter_name, parameter in model.named_parameters():
        if "lora_B" in parameter_name and f".{name}." in parameter_name:
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.02


def stack(folder: Path, fill_stage2: bool = False):
    """(model, processor) with a stage 1 that does something, and stage 2 learning on top of it."""
    model, processor = load_model(ModelConfig(model_name_or_path=str(folder)))
    torch.manual_seed(0)
    lora = lora_config(ModelConfig(), model)
    model = add_adapter(add_adapter(model, lora, STAGE1), lora, STAGE2)
    fill(model, STAGE1, 1)
    if fill_stage2:
        fill(model, STAGE2, 2)
    activate(model, BOTH, trainable=STAGE2)
    return model, processor


@torch.no_grad()
def logits(model) -> torch.Tensor:
    ids = torch.arange(20, 32)[None]
    return model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits


def tensors(model, name: str) -> dict[str, torch.Tensor]:
    return {n: p.detach().clone() for n, p in model.named_parameters() if "lora_" in n and f".{name}." in n}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def learning(model) -> set[str]:
    return {name.split(".")[-2] for name, parameter in model.named_parameters() if parameter.requires_grad}


def reward(completions: list[list[dict]], **_: object) -> list[float]:
    return [float(len(completion[0]["content"])) for completion in completions]


def trainer(folder: Path, run: Path, cls: type = StageTrainer, **changes: object):
    model, processor = stack(folder)
    prompts = [[{"role": "user", "content": [{"type": "text", "text": f"Say {i}."}]}] for i in range(4)]
    data = Dataset.from_dict({"row": range(4)}).with_transform(
        lambda batch: {"prompt": [prompts[i] for i in batch["row"]], "images": [[] for _ in batch["row"]]}
    )
    settings = {
        "output_dir": str(run), "per_device_train_batch_size": 8, "num_generations": 4, "max_completion_length": 6,
        "max_steps": 3, "learning_rate": 1e-3, "save_steps": 1, "report_to": "none", "bf16": False, "use_cpu": True,
        "logging_steps": 1, "generation_kwargs": {"suppress_tokens": vision_tokens(model, processor)},
    }  # fmt: skip
    config = StageConfig(**(settings | changes))
    extra = {"reference": [STAGE1]} if cls is StageTrainer else {}
    return cls(model=model, reward_funcs=[reward], args=config, train_dataset=data, processing_class=processor, **extra)


def test_active_is_what_acts_and_leaves_no_trace(random_folder: Path) -> None:
    model, _ = stack(random_folder, fill_stage2=True)
    both = logits(model)
    seen = {}
    for names in ([], [STAGE1], [STAGE2]):
        with active(model, names):
            seen[tuple(names)] = logits(model)
            assert learning(model) == set()
            with active(model, BOTH):
                assert torch.equal(logits(model), both)
            assert torch.equal(logits(model), seen[tuple(names)])
    assert len({tuple(value.flatten()[:4].tolist()) for value in [both, *seen.values()]}) == 4
    assert torch.equal(logits(model), both)
    assert learning(model) == {STAGE2}


def test_merged_layers_say_what_the_stack_says_and_leave_no_trace(
    random_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, _ = stack(random_folder, fill_stage2=True)
    unpacked = []
    monkeypatch.setattr(bnb.nn.Linear4bit, "forward", count_calls(bnb.nn.Linear4bit.forward, unpacked))
    for names in ([], [STAGE1], BOTH):
        with active(model, names):
            expected = logits(model)
            unpacked.clear()
            with merged(model):
                torch.testing.assert_close(logits(model), expected, rtol=0, atol=1e-5)
            assert not unpacked
            assert torch.equal(logits(model), expected)
            assert unpacked
    with pytest.raises(RuntimeError, match="halfway"), merged(model):
        raise RuntimeError("halfway")
    assert not any("forward" in vars(module) for module in model.modules())
    monkeypatch.setattr("lite.models.merged.MERGED_AT_MOST", 1000)  # a model that would take too much stays packed
    unpacked.clear()
    with merged(model):
        logits(model)
    assert unpacked


@pytest.mark.parametrize(("free", "some", "all_"), [(0, False, False), (200_000, True, False), (2**40, True, True)])
def test_layers_are_merged_as_far_as_free_memory_allows(
    random_folder: Path, monkeypatch: pytest.MonkeyPatch, free: int, some: bool, all_: bool
) -> None:
    model, _ = load_model(ModelConfig(model_name_or_path=str(random_folder)))
    layers = [module for module in model.modules() if isinstance(module, bnb.nn.Linear4bit)]
    expected = logits(model)
    monkeypatch.setattr("lite.models.merged.free_ram", lambda: free)
    with merged(model):
        taken = [layer for layer in layers if "forward" in vars(layer)]
        torch.testing.assert_close(logits(model), expected, rtol=0, atol=1e-5)
    assert (bool(taken), len(taken) == len(layers)) == (some, all_)
    assert 4 * sum(layer.in_features * layer.out_features for layer in taken) <= 0.75 * free


def test_merged_is_undone_where_it_fails_and_leaves_other_kinds_of_lora_alone(
    random_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, _ = load_model(ModelConfig(model_name_or_path=str(random_folder)))
    model = add_adapter(model, replace(lora_config(ModelConfig(), model), use_dora=True), STAGE1)
    fill(model, STAGE1, 1)
    expected = logits(model)
    with merged(model):
        torch.testing.assert_close(logits(model), expected, rtol=0, atol=1e-5)

    model, _ = stack(random_folder)
    unpack, calls = bnb.functional.dequantize_4bit, []

    def fail_at_the_third(*args, **kwargs):
        calls.append(args)
        if len(calls) == 3:
            raise MemoryError
        return unpack(*args, **kwargs)

    monkeypatch.setattr(bnb.functional, "dequantize_4bit", fail_at_the_third)
    with pytest.raises(MemoryError), merged(model):
        pass
    assert not any("forward" in vars(module) for module in model.modules())


def test_merged_takes_weights_that_were_packed_from_16_bits(random_folder: Path, tmp_path: Path) -> None:
    kept = kept_in_16bit(skeleton(AutoConfig.from_pretrained(random_folder)))
    config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", llm_int8_skip_modules=[kept])
    packed = AutoModelForImageTextToText.from_pretrained(
        random_folder, dtype=torch.bfloat16, quantization_config=config
    )
    packed.save_pretrained(tmp_path)
    AutoProcessor.from_pretrained(random_folder).save_pretrained(tmp_path)
    model, _ = load_model(ModelConfig(model_name_or_path=str(tmp_path)))
    expected = logits(model)
    with merged(model):
        torch.testing.assert_close(logits(model), expected, rtol=0, atol=1e-5)


def test_merged_takes_a_base_without_adapters(random_folder: Path) -> None:
    model, _ = load_model(ModelConfig(model_name_or_path=str(random_folder)))
    expected = logits(model)
    with merged(model):
        torch.testing.assert_close(logits(model), expected, rtol=0, atol=1e-5)


def count_calls(function: Callable, calls: list) -> Callable:
    def counted(*args, **kwargs):
        calls.append(function)
        return function(*args, **kwargs)

    return counted


def test_bare_base_is_the_model_without_adapters(random_folder: Path) -> None:
    plain, _ = load_model(ModelConfig(model_name_or_path=str(random_folder)))
    expected = logits(plain)
    model, _ = stack(random_folder, fill_stage2=True)
    with active(model, []):
        torch.testing.assert_close(logits(model), expected)


@pytest.mark.parametrize("beta", [0.0, 0.04])
def test_stage2_learns_and_stage1_stays_bit_by_bit(random_folder: Path, tmp_path: Path, beta: float) -> None:
    stage = trainer(random_folder, tmp_path, beta=beta)
    before = {name: tensors(stage.model, name) for name in BOTH}
    stage.train()
    assert same(tensors(stage.model, STAGE1), before[STAGE1])
    assert not same(tensors(stage.model, STAGE2), before[STAGE2])
    kl = [row["kl"] for row in stage.state.log_history if "kl" in row]
    assert bool(kl) == (beta > 0)


def test_reference_is_base_and_stage1(random_folder: Path, tmp_path: Path) -> None:
    """At the first step stage 2 does nothing yet, so KL to base + stage 1 is 0; to the bare base it is not."""
    stage = trainer(random_folder, tmp_path / "a", beta=0.04, max_steps=1, save_strategy="no")
    stage.train()
    assert stage.state.log_history[0]["kl"] == pytest.approx(0, abs=1e-6)
    wrong = trainer(random_folder, tmp_path / "b", beta=0.04, max_steps=1, save_strategy="no")
    wrong.model.disable_adapter = lambda: active(wrong.model, [])
    wrong.train()
    assert wrong.state.log_history[0]["kl"] > 1e-4


@pytest.mark.parametrize("beta", [0.0, 0.04])
def test_resumed_run_ends_like_an_unbroken_one(random_folder: Path, tmp_path: Path, beta: float) -> None:
    whole = trainer(random_folder, tmp_path / "whole", beta=beta)
    whole.train()
    broken = trainer(random_folder, tmp_path / "broken", beta=beta)
    first = tensors(broken.model, STAGE1)
    broken.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-2"))
    assert same(tensors(broken.model, STAGE2), tensors(whole.model, STAGE2))
    assert same(tensors(broken.model, STAGE1), first)
    assert learning(broken.model) == {STAGE2}


def test_stock_trl_trains_the_wrong_adapter_on_resume(random_folder: Path, tmp_path: Path) -> None:
    """When this fails, upstream has mended it, and StageTrainer._load_from_checkpoint can go."""
    trainer(random_folder, tmp_path).train()
    stock = trainer(random_folder, tmp_path / "stock", GRPOTrainer)
    stock.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert learning(stock.model) == {STAGE1}


def test_stock_trl_cannot_do_kl_on_stacked_adapters(random_folder: Path, tmp_path: Path) -> None:
    """When this fails, StageTrainer need not build TRL with beta 0."""
    with pytest.raises(KeyError, match="default"):
        trainer(random_folder, tmp_path, GRPOTrainer, beta=0.04)


def saved(folder: Path, run: Path) -> tuple[Path, Path]:
    """A stage 1 and a stage 2 adapter on disk."""
    model, _ = stack(folder, fill_stage2=True)
    card = {"base": str(folder), "base_fingerprint": base_fingerprint(model), "max_pixels": None, "document_chars": 99}
    save_adapter(model, STAGE1, run / STAGE1, card | {"stage": STAGE1})
    of_stage2 = {"stage1_hash": read_card(run / STAGE1)["hash"], "max_documents": 5, "max_completion_length": 24}
    save_adapter(model, STAGE2, run / STAGE2, card | of_stage2 | {"stage": STAGE2, "active": BOTH})
    return run / STAGE1, run / STAGE2


def test_stack_is_saved_and_loaded(random_folder: Path, tmp_path: Path) -> None:
    stage1, stage2 = saved(random_folder, tmp_path)
    expected = logits(stack(random_folder, fill_stage2=True)[0])
    model = load_stack(load_model(ModelConfig(model_name_or_path=str(random_folder)))[0], stage1, stage2)
    activate(model, BOTH)
    torch.testing.assert_close(logits(model), expected)
    settings = json.loads((stage1 / "adapter_config.json").read_text())
    assert settings["base_model_name_or_path"] == str(random_folder)


def test_adapter_of_another_family_is_refused_by_both_names(random_folder: Path, tmp_path: Path) -> None:
    stage1, _ = saved(random_folder, tmp_path)
    write_card(stage1, read_card(stage1) | {"model_type": "smolvlm"})
    base = load_model(ModelConfig(model_name_or_path=str(random_folder)))[0]
    with pytest.raises(LiteError, match=r"trained on a smolvlm \(.*\), and this model is a qwen3_vl"):
        load_stack(base, stage1, None)


def test_mismatched_pairs_are_refused(random_folder: Path, tmp_path: Path) -> None:
    stage1, stage2 = saved(random_folder, tmp_path)
    base = load_model(ModelConfig(model_name_or_path=str(random_folder)))[0]
    with pytest.raises(LiteError, match="none is given"):
        load_stack(base, None, stage2)
    other, _ = stack(random_folder)
    fill(other, STAGE1, 7)
    card = read_card(stage1)
    save_adapter(other, STAGE1, tmp_path / "other", card)
    with pytest.raises(LiteError, match="was trained on the stage 1 adapter with hash"):
        load_stack(base, tmp_path / "other", stage2)
    with pytest.raises(LiteError, match="was trained on"):
        load_stack(load_model(ModelConfig())[0], stage1, stage2)
    (stage1 / "lite.json").write_text(json.dumps(card | {"hash": "0" * 64}))
    with pytest.raises(LiteError, match="are not those that its lite"):
        load_stack(load_model(ModelConfig(model_name_or_path=str(random_folder)))[0], stage1, None)


def test_copy_and_reload_of_weights(random_folder: Path, tmp_path: Path) -> None:
    model, _ = stack(random_folder)
    copy_weights(model, STAGE1, STAGE2)
    assert same({n.replace(STAGE2, STAGE1): t for n, t in tensors(model, STAGE2).items()}, tensors(model, STAGE1))
    fill(model, STAGE2, 3)
    stage1, _ = saved(random_folder, tmp_path)
    load_weights(model, stage1, STAGE2)
    assert same({n.replace(STAGE2, STAGE1): t for n, t in tensors(model, STAGE2).items()}, tensors(model, STAGE1))
    assert learning(model) == {STAGE2}
    assert adapter_hash(stage1) == read_card(stage1)["hash"]


def test_an_adapter_with_more_or_fewer_tensors_is_refused(random_folder: Path, tmp_path: Path) -> None:
    model, _ = stack(random_folder)
    stage1, _ = saved(random_folder, tmp_path)
    weights = load_file(stage1 / "adapter_model.safetensors")
    name, tensor = weights.popitem()
    save_file(weights, stage1 / "adapter_model.safetensors")
    with pytest.raises(LiteError, match="does not fit this model: it lacks"):
        load_weights(model, stage1, STAGE2)
    save_file(weights | {name: tensor, "of.another.layer": tensor.clone()}, stage1 / "adapter_model.safetensors")
    with pytest.raises(LiteError, match="does not fit this model: it holds"):
        load_weights(model, stage1, STAGE2)


# ------------------------------------------------------------------------------------------------------ where they are


def test_adapters_are_found_by_run_parent_and_profile(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pair = run.parent / STAGE1 / "adapter", run / "adapter"
    assert find_adapters(run) == find_adapters(run.parent) == pair
    assert find_adapters("elsewhere", stage2=pair[1]) == pair
    assert find_adapters("elsewhere", *pair) == pair
    monkeypatch.chdir(run.parent.parent)
    (Path("runs")).symlink_to(run.parent.parent)
    assert [path.resolve() for path in find_adapters("arbitrary")] == [path.resolve() for path in pair]


def test_shipped_adapters_are_the_last_resort(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shipped = SHIPPED / STAGE1, SHIPPED / STAGE2
    assert find_adapters("tiny") == find_adapters("runs/x/stage2", shipped=True) == find_adapters(SHIPPED) == shipped
    assert find_adapters("runs/x/stage2", stage1="runs/x/stage1/adapter", shipped=True) == shipped  # a recipe names it
    assert find_adapters(run, shipped=True) == (run.parent / STAGE1 / "adapter", run / "adapter")
    with pytest.raises(LiteError, match="no stage 2 adapter in nowhere"):
        find_adapters("tiny", stage2="nowhere", shipped=True)


def test_without_a_gpu_and_a_run_the_embedded_model_answers(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("lite.runs.gpu_mebibytes", lambda: None)
    assert trained_profile() == "tiny"
    monkeypatch.setattr("lite.runs.gpu_mebibytes", lambda: 24564)
    assert trained_profile() == "tiny"  # nothing was trained
    assert "qwen3-vl-4b would fit" in caplog.text


def test_settings_name_the_stage_1_that_a_run_is_stacked_on(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run.parent, tmp_path / "moved")
    shutil.move(tmp_path / "moved" / STAGE1, tmp_path / "elsewhere")
    stage2 = tmp_path / "moved" / STAGE2
    with pytest.raises(LiteError, match="does not exist"):
        find_adapters(stage2)
    (stage2 / "config.yaml").write_text(f"stage1_adapter: {tmp_path / 'elsewhere' / 'adapter'}\n")
    assert find_adapters(stage2)[0] == stage1_of(stage2 / "adapter") == tmp_path / "elsewhere" / "adapter"
    shutil.move(tmp_path / "elsewhere", tmp_path / "moved" / STAGE1)  # the settings are older than the move
    assert find_adapters(stage2)[0] == tmp_path / "moved" / STAGE1 / "adapter"


def test_what_is_no_pair_says_what_to_do(run: Path, tmp_path: Path) -> None:
    with pytest.raises(LiteError, match=r"qwen3-vl-4b is neither.*recipes/stage2.sh"):
        find_adapters("qwen3-vl-4b")
    with pytest.raises(LiteError, match="no stage 2 adapter"):
        find_adapters(run, stage2=run.parent / STAGE1 / "adapter")
    fresh = tmp_path / "fresh" / STAGE2 / "adapter"
    shutil.copytree(run / "adapter", fresh)
    write_card(fresh, read_card(fresh) | {"stage1_hash": None})
    with pytest.raises(LiteError, match="without stage 1"):
        find_adapters(fresh.parent)


def test_saving_a_stack_asks_no_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr("peft.utils.other.file_exists", lambda *_, **__: pytest.fail("the hub was asked"))
    base, _ = load_model(ModelConfig())
    model = load_stack(base, SHIPPED / STAGE1, SHIPPED / STAGE2)
    save_adapter(model, STAGE2, tmp_path / "adapter", read_card(SHIPPED / STAGE2))
    model.save_pretrained(tmp_path / "checkpoint")  # as transformers' trainer does
    assert read_card(tmp_path / "adapter")["hash"] == read_card(SHIPPED / STAGE2)["hash"]
