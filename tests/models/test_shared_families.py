"""The shared prompt in every family that has it: log-probs, gradients, sampling and scores of the repeated way."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from peft import PeftModel, get_peft_model
from PIL import Image
from tiny_families import FAMILIES
from transformers import GenerationConfig
from trl.trainer.utils import pad, selective_log_softmax_and_entropy, split_pixel_values_by_grid

from lite.config.model import ModelConfig
from lite.config.runs import StageConfig
from lite.models import shared_attention, shared_prompt
from lite.models.adapters import activate
from lite.models.inputs import encode, vision_tokens
from lite.models.layers import base_of
from lite.models.loading import load_model, lora_config
from lite.schema import Document, LiteError
from lite.stages.filter import score
from lite.train.trainer import StageTrainer

UNSHARED = ("gemma3", "gemma4", "qwen3_5_think")  # the last is qwen3_5 with another chat template
FAST = ("qwen3_5", "smolvlm")  # layers with a state and positions in three planes; tiles and positions in a line
SHARED = [pytest.param(n, marks=() if n in FAST else pytest.mark.slow) for n in FAMILIES if n not in UNSHARED]


def picture(width: int, height: int) -> Document:
    pixels = np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Document(f"{width}", "image", f"Picture {width}", image=lambda: Image.fromarray(pixels))


def text(words: int) -> Document:
    return Document(f"t{words}", "text", "A text", "Some words about a country. " * words)


# What each prompt shows, by case
CASES = {"images": [[picture(96, 64), text(1), picture(60, 120)], [picture(64, 64)]], "text": [[text(3)], [text(9)]]}
CASES["mixed"] = [CASES["text"][0], CASES["images"][0]]


@pytest.fixture(scope="module", params=SHARED)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shared") / request.param
    FAMILIES[request.param](folder)
    return folder


def stacked(folder: Path, load_in_4bit: bool):
    """(model, processor): two adapters that do something, of which the second learns."""
    base, processor = load_model(ModelConfig(model_name_or_path=str(folder), load_in_4bit=load_in_4bit))
    lora = lora_config(ModelConfig(lora_r=4), base)
    lora.init_lora_weights = False
    torch.manual_seed(1)
    model = get_peft_model(base, lora, adapter_name="stage1")
    model.add_adapter("stage2", lora)
    activate(model, ["stage1", "stage2"], trainable="stage2")
    return model.train(), processor


@pytest.fixture(scope="module")
def in_full(folder: Path):
    return stacked(folder, load_in_4bit=False)


def prompt_of(documents: Sequence[Document]) -> list[dict]:
    parts = [{"type": "text", "text": "Which of them is red? "}]
    for document in documents:
        parts += [{"type": "image"}] if document.image else [{"type": "text", "text": document.text}]
    return [{"role": "user", "content": parts}]


def batch(processor, case: str, group: int, length: int) -> dict:
    """What a trainer forwards: rows that repeat their prompts, and the images of each prompt."""
    encoded = [encode(processor, [prompt_of(documents)], documents) for documents in CASES[case]]
    prompts = [of_prompt["input_ids"][0] for of_prompt in encoded for _ in range(group)]
    generator = torch.Generator().manual_seed(0)
    completions = torch.randint(300, 500, (len(prompts), length), generator=generator)
    ends = torch.randint(1, length + 1, (len(prompts), 1), generator=generator)
    ends[0], ends[1] = length, 1
    mask = (torch.arange(length) < ends).long()
    ids = pad(prompts, padding_value=0, padding_side="left")
    seen = pad([torch.ones_like(prompt) for prompt in prompts], padding_value=0, padding_side="left")
    return {
        "input_ids": torch.cat([ids, completions * mask], 1),
        "attention_mask": torch.cat([seen, mask], 1),
        "vision": [shared_prompt.of_images(of_prompt) for of_prompt in encoded],
    }


def one_by_one(model: PeftModel, rows: dict, group: int, length: int) -> torch.Tensor:
    """Log-probs [rows, length] where each completion is forwarded behind a prompt of its own, without pads."""
    found = []
    for row, (ids, mask) in enumerate(zip(rows["input_ids"], rows["attention_mask"].bool(), strict=True)):
        real = ids[mask][None]
        images = dict(rows["vision"][row // group])
        if "image_grid_thw" in images:
            images["mm_token_type_ids"] = (real == base_of(model).config.image_token_id).int()
        logits = model(input_ids=real, attention_mask=torch.ones_like(real), use_cache=False, **images).logits
        count = int(mask[-length:].sum())
        logps = logits[0, -count - 1 : -1].float().log_softmax(-1).gather(-1, real[0, -count:, None])[:, 0]
        found.append(torch.nn.functional.pad(logps, (0, length - count)))
    return torch.stack(found)


def shared(model: PeftModel, rows: dict, group: int, length: int) -> torch.Tensor:
    log_softmax = partial(selective_log_softmax_and_entropy, temperature=1.0)
    ids, mask = rows["input_ids"], rows["attention_mask"]
    return shared_prompt.group_log_probs(model, ids, mask, length, group, rows["vision"], log_softmax)[0]


def with_gradients(model: PeftModel, way, rows: dict, group: int, length: int):
    model.zero_grad()
    logps = way(model, rows, group, length)
    (logps * torch.randn(logps.shape, generator=torch.Generator().manual_seed(2))).sum().backward()
    return logps.detach(), {name: w.grad.clone() for name, w in model.named_parameters() if w.grad is not None}


def assert_same(model: PeftModel, processor, case: str, group: int = 3, length: int = 5) -> None:
    rows = batch(processor, case, group, length)
    expected, gradients = with_gradients(model, one_by_one, rows, group, length)
    with shared_prompt.attending(model):
        ours, our_gradients = with_gradients(model, shared, rows, group, length)
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=0)
    assert expected.std() > 0.1
    assert our_gradients.keys() == gradients.keys()
    assert all(".stage2." in name for name in gradients)
    largest = max(gradient.norm() for gradient in gradients.values())
    assert largest > 0
    for name, gradient in gradients.items():
        assert (our_gradients[name] - gradient).norm() <= 1e-5 * gradient.norm() + 2e-6 * largest, name


@pytest.mark.parametrize("short", [0, 10_000], ids=["lengths", "mask"])
@pytest.mark.parametrize("case", CASES)
def test_log_probs_and_gradients_are_those_of_repeated_prompts(
    in_full, case: str, short: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_attention, "SHORT", short)
    monkeypatch.setattr(shared_prompt, "_batches", lambda lengths: list(torch.arange(len(lengths))[:, None]))
    assert_same(*in_full, case)


def test_prompts_forwarded_together_with_pads(in_full) -> None:
    assert_same(*in_full, "mixed")


def test_with_checkpointing(folder: Path) -> None:
    model, processor = stacked(folder, load_in_4bit=False)
    model.enable_input_require_grads()
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    assert_same(model, processor, "mixed")


def test_in_four_bits(folder: Path) -> None:
    assert_same(*stacked(folder, load_in_4bit=True), "mixed")


@pytest.mark.parametrize("sampled", [True, False])
@pytest.mark.parametrize("case", CASES)
def test_completions_are_those_of_repeated_prompts(in_full, case: str, sampled: bool) -> None:
    model, processor = in_full
    group = 3
    rows = batch(processor, case, group, 1)
    ids, mask = rows["input_ids"][:, :-1], rows["attention_mask"][:, :-1]
    settings = GenerationConfig(
        max_new_tokens=8, do_sample=sampled, top_k=0, eos_token_id=list(range(300, 500, 7)), pad_token_id=0,
        suppress_tokens=vision_tokens(model, processor),
    )  # fmt: skip
    expected = []
    for row in range(0, len(ids), group):  # alone, since some processors' images of several prompts are one tensor
        real = ids[row][mask[row].bool()].expand(group, -1)
        images = rows["vision"][row // group]
        if "image_grid_thw" in images:
            images = images | {"mm_token_type_ids": (real == base_of(model).config.image_token_id).int()}
            images |= {name: torch.cat([images[name]] * group) for name in ("pixel_values", "image_grid_thw")}
        else:
            images = {name: torch.cat([value] * group) for name, value in images.items()}
        torch.manual_seed(row)
        model.eval()
        out = model.generate(input_ids=real, attention_mask=torch.ones_like(real), **images, generation_config=settings)
        expected.append(out[:, real.shape[1] :])
        with shared_prompt.attending(model), torch.no_grad():
            torch.manual_seed(row)
            vision = [rows["vision"][row // group]]
            ours = shared_prompt.generate(model, real[:1], torch.ones_like(real[:1]), vision, group, settings)
        model.train()
        assert torch.equal(ours, expected[-1])
    if not sampled:  # all prompts at once, with pads on the left
        model.eval()
        with shared_prompt.attending(model), torch.no_grad():
            together = shared_prompt.generate(model, ids[::group], mask[::group], rows["vision"], group, settings)
        model.train()
        for i, alone in enumerate(expected):
            width = alone.shape[1]
            assert torch.equal(together[i * group : (i + 1) * group, :width], alone)


def test_a_run_with_and_without_images(folder: Path, tmp_path: Path) -> None:
    """The run itself compares its first completions with TRL's way, and refuses to go on where they differ."""
    model, processor = stacked(folder, load_in_4bit=True)
    shown = [*CASES["images"], *CASES["text"]]

    def to_rows(batch: dict) -> dict:
        return {
            "prompt": [prompt_of(shown[i]) for i in batch["row"]],
            "images": [[d.load_image() for d in shown[i] if d.image] for i in batch["row"]],
        }

    config = StageConfig(
        output_dir=str(tmp_path), per_device_train_batch_size=8, num_generations=2, max_completion_length=6,
        max_steps=2, beta=0.1, learning_rate=1e-3, save_strategy="no", report_to="none", bf16=False, use_cpu=True,
        logging_steps=1, generation_kwargs={"suppress_tokens": vision_tokens(model, processor)},
    )  # fmt: skip
    before = {name: weight.detach().clone() for name, weight in model.named_parameters() if "lora_" in name}
    trainer = StageTrainer(
        model=model,
        reward_funcs=[lambda completion_ids, **_: [float(sum(ids) % 7) for ids in completion_ids]],
        args=config,
        train_dataset=Dataset.from_dict({"row": range(len(shown))}).with_transform(to_rows),
        processing_class=processor,
        reference=["stage1"],
    )
    assert trainer.shares_prompts
    trainer.train()
    assert trainer._compared
    changed = {name for name, weight in model.named_parameters() if name in before and not weight.equal(before[name])}
    assert changed
    assert all(".stage2." in name for name in changed)


def test_stock_trl_splits_the_pixels_of_smolvlm_by_images_where_they_are_rows(tmp_path: Path) -> None:
    """When this fails, TRL has fixed it: remove `only_shared` from Family, and what StageTrainer refuses for it."""
    rows = torch.arange(8.0)[:, None, None, None, None].expand(8, 3, 1, 1, 1)  # of 8 completions, [tiles, 3, h, w] each
    batch = {"pixel_values": rows, "num_images": [2, 2, 2, 2, 0, 0, 0, 0]}  # 8 images in all, as many as rows
    split = split_pixel_values_by_grid(batch)["pixel_values"]
    assert [part[:, 0, 0, 0, 0].tolist() for part in split[:2]] == [[0, 1], [2, 3]]  # and not [[0], [1]]
    FAMILIES["smolvlm"](tmp_path / "model")
    model, processor = stacked(tmp_path / "model", load_in_4bit=False)
    config = StageConfig(output_dir=str(tmp_path), use_cpu=True, bf16=False, report_to="none", shared_prompt=False)
    data = Dataset.from_dict({"prompt": [prompt_of(CASES["text"][0])] * 8})
    with pytest.raises(LiteError, match="pixels of other prompts"):
        StageTrainer(
            model=model, reward_funcs=[lambda **_: [0.0]], args=config, train_dataset=data, processing_class=processor
        )


def test_scores_are_those_of_one_prompt_at_a_time(in_full, monkeypatch: pytest.MonkeyPatch) -> None:
    model, processor = in_full
    pairs = [("Which flag is red?", document) for document in (picture(96, 64), text(1), picture(60, 120), text(9))]
    ours = score(model, processor, pairs, 300)
    monkeypatch.setattr(shared_prompt, "unshared", lambda model: "for comparison")
    expected = np.concatenate([score(model, processor, [pair], 300) for pair in pairs])
    np.testing.assert_allclose(ours, expected, atol=1e-5)
    assert np.std(expected) > 1e-3
    assert base_of(model).config.text_config._attn_implementation == "sdpa"  # as before
    assert not any("forward" in vars(module) for module in base_of(model).modules())


def test_layer_that_passes_the_packed_row_by_is_noticed(in_full, monkeypatch: pytest.MonkeyPatch) -> None:
    model, processor = in_full
    packed = shared_attention.attention
    counted = []

    def one_layer_does_not_ask(module, *args, packed=None, **kwargs):
        counted.append(module)
        return attention(module, *args, packed=packed if len(counted) > 1 else None, **kwargs)

    attention = packed
    monkeypatch.setitem(
        shared_attention.AttentionInterface._global_mapping, shared_attention.ATTENTION, one_layer_does_not_ask
    )
    with pytest.raises(LiteError, match="layers of this"):
        score(model, processor, [("Which?", text(1)), ("Which?", text(2))], 300)
