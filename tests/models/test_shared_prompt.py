"""A prompt computed once per group gives what TRL gives that computes it once per completion."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import PeftModel, get_peft_model
from PIL import Image
from transformers import AutoConfig, AutoModelForImageTextToText, GenerationConfig, Qwen2_5_VLConfig
from trl import GRPOTrainer
from trl.trainer.utils import pad, selective_log_softmax_and_entropy

from lite.config.model import ModelConfig
from lite.config.runs import StageConfig
from lite.models import families, shared_attention, shared_prompt
from lite.models.adapters import activate
from lite.models.inputs import vision_tokens
from lite.models.loading import load_model, lora_config
from lite.runs import TINY
from lite.schema import LiteError
from lite.train.trainer import StageTrainer

COLOURS = ("red", "green", "blue", "white")


def rows(images_per_prompt: list[int]) -> Dataset:
    """Prompts of different lengths, with the given numbers of images of different sizes between their texts."""
    images = [
        [Image.new("RGB", (64 + 32 * i, 48), colour) for i, colour in enumerate(COLOURS[:count])]
        for count in images_per_prompt
    ]

    def prompt(row: int) -> list[dict]:
        count = images_per_prompt[row]
        parts = [part for i in range(count) for part in ({"type": "text", "text": f"[{i}] "}, {"type": "image"})]
        return [{"role": "user", "content": [*parts, {"type": "text", "text": "How many of them? " * (row + 1)}]}]

    data = Dataset.from_dict({"row": range(len(images))})
    return data.with_transform(
        lambda batch: {"prompt": [prompt(i) for i in batch["row"]], "images": [images[i] for i in batch["row"]]}
    )


def length_reward(completions: list[list[dict]], **_: object) -> list[float]:
    """Differs within a group, so that there is something to learn."""
    return [float(sum(map(ord, completion[0]["content"])) % 7) for completion in completions]


def trainer(
    folder: Path,
    run: Path,
    data: Dataset,
    shared: bool,
    quantised: bool = False,
    stacked: bool = False,
    **changes: object,
) -> StageTrainer:
    base, processor = load_model(ModelConfig(model_name_or_path=str(folder), load_in_4bit=quantised))
    torch.manual_seed(1)
    lora = lora_config(ModelConfig(), base)
    lora.init_lora_weights = False  # B is not zero: gradients reach A, and the policy is not the reference
    model = get_peft_model(base, lora, adapter_name="stage1")
    if stacked:
        model.add_adapter("stage2", lora)
        activate(model, ["stage1", "stage2"], trainable="stage2")
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            weight.data.mul_(0.3)
    defaults = {
        "output_dir": str(run),
        "shared_prompt": shared,
        "per_device_train_batch_size": 8,
        "num_generations": 4,
        "max_completion_length": 6,
        "max_steps": 2,
        "learning_rate": 1e-2,
        "optim": "sgd",
        "lr_scheduler_type": "constant",
        "max_grad_norm": 1e9,
        "save_strategy": "no",
        "report_to": "none",
        "bf16": False,
        "use_cpu": True,
        "logging_steps": 1,
        "gradient_checkpointing": False,
        "generation_kwargs": {"suppress_tokens": vision_tokens(base, processor)},
    }
    return StageTrainer(
        model=model,
        reward_funcs=[length_reward],
        args=StageConfig(**(defaults | changes)),
        train_dataset=data,
        processing_class=processor,
        reference=("stage1",) if stacked else (),
    )


def trained(stage: StageTrainer) -> tuple[torch.Tensor, list[dict], list[torch.Tensor]]:
    """(change of all trained weights, logged metrics, completions) of a run."""
    seen = []
    score = stage._generate_and_score_completions

    def listen(inputs):
        batch = score(inputs)
        seen.append(batch["completion_ids"] * batch["completion_mask"])
        return batch

    stage._generate_and_score_completions = listen
    weights = [weight for weight in stage.model.parameters() if weight.requires_grad]
    before = [weight.detach().clone() for weight in weights]
    stage.train()
    change = torch.cat([(weight - old).detach().flatten() for weight, old in zip(weights, before, strict=True)])
    return change, [row for row in stage.state.log_history if "loss" in row], seen


@pytest.mark.parametrize(
    ("images_per_prompt", "changes"),
    [
        ([2, 1, 3, 2], {}),
        ([0, 0, 0, 0], {"beta": 0.1}),
        ([2, 0, 0, 1], {"beta": 0.1, "gradient_checkpointing": True}),
        ([1, 0, 2, 0], {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 4}),
        ([1, 0, 2, 0], {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4, "max_steps": 3}),
        ([1, 0, 2, 0], {"num_iterations": 2, "max_steps": 4, "beta": 0.1}),
        ([1, 0, 2, 0], {"stacked": True, "beta": 0.1}),
        ([0, 2, 1, 0], {"quantised": True, "num_generations": 8, "max_completion_length": 1}),
    ],
    ids=str,
)
def test_training_is_that_of_trl(
    random_folder: Path, tmp_path: Path, images_per_prompt: list[int], changes: dict
) -> None:
    data = rows(images_per_prompt)
    expected, metrics, tokens = trained(trainer(random_folder, tmp_path / "stock", data, shared=False, **changes))
    change, ours, our_tokens = trained(trainer(random_folder, tmp_path / "shared", data, shared=True, **changes))
    assert expected.norm() > 1e-6
    assert len(tokens) == len(our_tokens)
    assert all(torch.equal(a, b) for a, b in zip(tokens, our_tokens, strict=True))
    assert (change - expected).norm() <= 1e-4 * expected.norm()
    same = ("loss", "reward", "entropy", "kl", "completions/mean_length", "num_tokens", "grad_norm")
    for row, our_row in zip(metrics, ours, strict=True):
        for key in set(same) & set(row):
            assert our_row[key] == pytest.approx(row[key], rel=1e-3, abs=1e-5), key


# ---- log-probs, entropies and gradients, directly --------------------------------------------------------------------


def random_family(family: str) -> PeftModel:
    """A random model of the family with the embedded model's shape, whose adapter acts."""
    source = AutoConfig.from_pretrained(TINY)
    if family == "qwen3_vl":
        config = source
    else:
        text = source.text_config.to_dict() | {"model_type": "qwen2_5_vl_text"}
        text["rope_parameters"] = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 6, 6]}
        vision = {"depth": 2, "hidden_size": 64, "intermediate_size": 128, "num_heads": 4, "patch_size": 8}
        vision |= {"out_hidden_size": 128, "temporal_patch_size": 1, "window_size": 32, "fullatt_block_indexes": [1]}
        tokens = {name: value for name, value in source.to_dict().items() if name.endswith("_token_id")}
        config = Qwen2_5_VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=True, **tokens)
    torch.manual_seed(0)
    model = AutoModelForImageTextToText.from_config(config)
    with torch.no_grad():  # as initialised, the logits hardly depend on the context
        for name, weight in model.named_parameters():
            if weight.ndim >= 2 and "norm" not in name:
                weight.mul_(2.5)
    lora = lora_config(ModelConfig(), model)
    lora.init_lora_weights = False
    peft = get_peft_model(model, lora)
    shared_prompt.prepare(peft)
    return peft.train()


@pytest.fixture(scope="module", params=["qwen3_vl", "qwen2_5_vl"])
def family(request: pytest.FixtureRequest) -> PeftModel:
    return random_family(request.param)


@dataclass
class Batch:
    """What TRL hands to `_get_per_token_logps_and_entropies`: rows repeat their prompts and images."""

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    length: int
    group: int
    pixel_values: torch.Tensor  # of the unique prompts
    image_grid_thw: torch.Tensor
    images_per_prompt: list[int]


def random_batch(seed: int, group: int, length: int, images_per_prompt: list[int], text: int, ragged: bool) -> Batch:
    """Left-padded prompts with images at random places, right-padded completions that end at random places."""
    generator = torch.Generator().manual_seed(seed)

    def integers(low: int, high: int, *shape: int) -> torch.Tensor:
        return torch.randint(low, high, shape, generator=generator)

    grids, prompts = [], []
    for count in images_per_prompt:
        pieces = [integers(20, 500, int(integers(1, text + 1, 1)))]
        for _ in range(count):
            grid = torch.tensor([1, 2 * int(integers(1, 4, 1)), 2 * int(integers(1, 4, 1))])
            grids.append(grid)
            vision = torch.tensor([3, *[6] * int(grid.prod() // 4), 4])  # start, image tokens, end
            pieces += [vision, integers(20, 500, int(integers(1, text + 1, 1)))]
        prompts.append(torch.cat(pieces))
    grid = torch.stack(grids) if grids else torch.zeros(0, 3, dtype=torch.long)
    ids = pad([prompt for prompt in prompts for _ in range(group)], padding_value=0, padding_side="left")
    mask = pad([torch.ones_like(p) for p in prompts for _ in range(group)], padding_value=0, padding_side="left")
    completions = integers(20, 500, len(ids), length)
    ends = integers(1, length + 1, len(ids), 1) if ragged else torch.full((len(ids), 1), length)
    ends[0] = length
    completion_mask = (torch.arange(length) < ends).long()
    return Batch(
        torch.cat([ids, completions * completion_mask], 1),
        torch.cat([mask, completion_mask], 1),
        length,
        group,
        torch.randn(int(grid.prod(-1).sum()), 192, generator=generator),
        grid,
        images_per_prompt,
    )


def split_vision(batch: Batch) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Pixels and grids of each prompt."""
    grids = batch.image_grid_thw.split(batch.images_per_prompt)
    return batch.pixel_values.split([int(grid.prod(-1).sum()) for grid in grids]), grids


def vision_of(batch: Batch) -> list[dict[str, torch.Tensor]]:
    """The images of each prompt, as the shared prompt takes them."""
    split = zip(*split_vision(batch), strict=True)
    return [{"pixel_values": pixels, "image_grid_thw": grid} if len(grid) else {} for pixels, grid in split]


def as_trl(model: PeftModel, batch: Batch, temperature: float = 0.9):
    """Log-probs and entropies of stock TRL, every prompt and image repeated."""
    stub = SimpleNamespace(model_kwarg_keys={"logits_to_keep"}, temperature=temperature, _entropy_bonus_enabled=True)
    pixels, grids = split_vision(batch)
    images = {}
    if len(batch.image_grid_thw):
        images = {
            "pixel_values": torch.cat([value for value in pixels for _ in range(batch.group)]),
            "image_grid_thw": torch.cat([grid for grid in grids for _ in range(batch.group)]),
            "num_images": [count for count in batch.images_per_prompt for _ in range(batch.group)],
            "mm_token_type_ids": (batch.input_ids == 6).int(),
        }
    return GRPOTrainer._full_logits_logps(
        stub, model, batch.input_ids, batch.attention_mask, batch.length, compute_entropy=True, **images
    )[:2]


def as_shared(model: PeftModel, batch: Batch, temperature: float = 0.9):
    vision = vision_of(batch)
    log_softmax = partial(selective_log_softmax_and_entropy, temperature=temperature)
    return shared_prompt.group_log_probs(
        model, batch.input_ids, batch.attention_mask, batch.length, batch.group, vision, log_softmax
    )


def with_gradients(model: PeftModel, way, batch: Batch) -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
    model.zero_grad()
    logps, entropies = way(model, batch)
    weights = torch.randn(logps.shape, generator=torch.Generator().manual_seed(1))
    (weights * logps + 0.1 * entropies).sum().backward()
    gradients = {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}
    return logps.detach(), entropies.detach(), gradients


def layers(model: PeftModel) -> int:
    return model.config.text_config.num_hidden_layers


def assert_same(model: PeftModel, batch: Batch) -> None:
    logps, entropies, gradients = with_gradients(model, as_trl, batch)
    our_logps, our_entropies, our_gradients = with_gradients(model, as_shared, batch)
    torch.testing.assert_close(our_logps, logps, atol=1e-5, rtol=0)
    torch.testing.assert_close(our_entropies, entropies, atol=1e-5, rtol=0)
    assert our_gradients.keys() == gradients.keys()
    assert len(gradients) == 2 * 7 * layers(model)
    largest = max(gradient.norm() for gradient in gradients.values())
    for name, gradient in gradients.items():
        # rounding is relative to what the layers exchange, not to a tensor whose gradient happens to be tiny
        assert (our_gradients[name] - gradient).norm() <= 1e-5 * gradient.norm() + 1e-6 * largest, name


@pytest.mark.parametrize("short", [0, 10_000], ids=["one completion at a time", "one mask"])
@pytest.mark.parametrize(
    ("group", "length", "images_per_prompt"),
    [(1, 5, [1]), (16, 3, [2]), (4, 1, [1]), (8, 6, [0]), (3, 6, [2, 0, 1]), (2, 4, [0, 0])],
    ids=str,
)
def test_log_probs_and_gradients_are_those_of_trl(
    family: PeftModel,
    monkeypatch: pytest.MonkeyPatch,
    group: int,
    length: int,
    images_per_prompt: list[int],
    short: int,
) -> None:
    monkeypatch.setattr(shared_attention, "SHORT", short)
    assert_same(family, random_batch(group + length, group, length, images_per_prompt, 20, ragged=True))


@settings(max_examples=15, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10_000),
    group=st.integers(1, 6),
    length=st.integers(1, 8),
    images_per_prompt=st.lists(st.integers(0, 2), min_size=1, max_size=3),
    text=st.integers(1, 30),
    ragged=st.booleans(),
)
def test_log_probs_and_gradients_of_random_shapes(
    family: PeftModel, seed: int, group: int, length: int, images_per_prompt: list[int], text: int, ragged: bool
) -> None:
    assert_same(family, random_batch(seed, group, length, images_per_prompt, text, ragged))


def test_long_rows_are_forwarded_one_by_one_and_come_back_in_order(family: PeftModel) -> None:
    batch = random_batch(5, 2, 300, [1, 0, 2], 40, ragged=True)
    with torch.no_grad():
        expected, _ = as_trl(family, batch)
        ours, _ = as_shared(family, batch)
    torch.testing.assert_close(ours, expected, atol=2e-5, rtol=0)


def test_truncated_completions_that_are_masked_count_nothing_and_backward_still_runs(family: PeftModel) -> None:
    batch = random_batch(3, 4, 5, [1, 0], 10, ragged=False)
    batch.attention_mask[:, -5:] = 0
    logps, entropies, gradients = with_gradients(family, as_shared, batch)
    assert not logps.any()
    assert not entropies.any()
    assert len(gradients) == 2 * 7 * layers(family)
    assert not any(gradient.any() for gradient in gradients.values())


def test_a_completion_does_not_see_its_neighbours(family: PeftModel) -> None:
    batch = random_batch(7, 3, 5, [1], 20, ragged=False)
    with torch.no_grad():
        before, _ = as_shared(family, batch)
        batch.input_ids[0, -5:] = 30
        after, _ = as_shared(family, batch)
    assert not torch.equal(before[0], after[0])
    torch.testing.assert_close(before[1:], after[1:], atol=1e-6, rtol=0)


def test_bf16_is_no_further_from_fp32_than_trl_is(family: PeftModel) -> None:
    batch = random_batch(11, 8, 16, [2, 1], 60, ragged=True)
    half = copy.deepcopy(family).to(torch.bfloat16)
    with torch.no_grad():
        exact, _ = as_trl(family, batch)
        stock, _ = as_trl(half, batch)
        ours, _ = as_shared(half, batch)
    error = (stock.float() - exact).square().mean().sqrt()
    assert error > 1e-4
    assert (ours.float() - exact).square().mean().sqrt() <= 1.1 * error


@pytest.mark.parametrize("sampled", [True, False])
@pytest.mark.parametrize("images_per_prompt", [[1], [2, 0, 1], [0, 0]], ids=str)
def test_generated_tokens_are_those_of_the_repeated_prompt(
    family: PeftModel, images_per_prompt: list[int], sampled: bool
) -> None:
    family.eval()
    group = 4
    batch = random_batch(13, group, 1, images_per_prompt, 15, ragged=False)
    ids, mask = batch.input_ids[:, :-1], batch.attention_mask[:, :-1]
    # a third of all tokens ends a completion, so that they end at different places
    config = GenerationConfig(
        max_new_tokens=12, do_sample=sampled, top_k=0, eos_token_id=list(range(20, 500, 3)), pad_token_id=0,
        suppress_tokens=[3, 4, 5, 6, 7],
    )  # fmt: skip
    vision = vision_of(batch)
    repeated = shared_prompt.vision_inputs(family, [images for images in vision for _ in range(group)])
    if repeated:
        repeated["mm_token_type_ids"] = (ids == 6).int()
    torch.manual_seed(3)
    expected = family.generate(input_ids=ids, attention_mask=mask, **repeated, generation_config=config)
    torch.manual_seed(3)
    ours = shared_prompt.generate(family, ids[::group], mask[::group], vision, group, config)
    family.train()
    assert torch.equal(ours, expected[:, ids.shape[1] :])
    assert len(set((ours != 0).sum(1).tolist())) > (1 if sampled else 0)


def test_shuffling_keeps_groups_and_their_images_together() -> None:
    batch = {
        "prompt_ids": torch.arange(24).view(12, 2),
        "advantages": torch.arange(12.0),
        "num_items_in_batch": torch.tensor(7),
        "pixel_values": [torch.full((2, 1), i) for i in range(3)],
    }
    for parts, rows in ((1, 12), (3, 4), (6, 2)):
        micro_batches = shared_prompt.shuffle_and_split(batch, group_size=4, parts=parts)
        seen = torch.cat([micro["advantages"] for micro in micro_batches])
        assert sorted(seen.tolist()) == list(range(12))
        for micro in micro_batches:
            assert len(micro["prompt_ids"]) == rows
            assert micro["num_items_in_batch"] == 7
            prompts = (micro["advantages"] // 4).tolist()
            assert torch.equal(micro["prompt_ids"][:, 0], 2 * micro["advantages"].long())
            assert [int(pixels[0]) for pixels in micro["pixel_values"]] == list(dict.fromkeys(prompts))


# ---- what is saved, and what is refused ------------------------------------------------------------------------------


def test_each_image_is_preprocessed_once_and_no_log_probs_are_computed_twice(
    random_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = trainer(random_folder, tmp_path, rows([2, 0, 1, 2]), shared=True, max_steps=1)
    stage._compared = True  # what is done once per run does not count
    sizes, grads, patches = [], [], []
    preprocess = type(stage.processing_class.image_processor).preprocess
    monkeypatch.setattr(
        type(stage.processing_class.image_processor),
        "preprocess",
        lambda self, images, **options: (sizes.append(sum(map(len, images))), preprocess(self, images, **options))[1],
    )
    log_probs = shared_prompt.group_log_probs
    monkeypatch.setattr(
        shared_prompt,
        "group_log_probs",
        lambda *args, **options: (grads.append(torch.is_grad_enabled()), log_probs(*args, **options))[1],
    )
    stage.model.get_base_model().model.visual.register_forward_pre_hook(
        lambda module, args, options: patches.append(len(args[0] if args else options["hidden_states"])),
        with_kwargs=True,
    )
    stage.train()
    assert len(sizes) == 1
    assert grads == [True]  # neither old nor reference log-probs
    assert patches[0] == patches[1]  # sampling and the policy see the images of the two prompts once each
    assert len(patches) == 2


def test_evaluation_shares_prompts_too(random_folder: Path, tmp_path: Path) -> None:
    def evaluated(shared: bool) -> dict:
        changes = {"num_generations_eval": 2, "per_device_eval_batch_size": 4}
        stage = trainer(random_folder, tmp_path, rows([1, 2]), shared=shared, **changes)
        torch.manual_seed(5)
        return stage.evaluate(eval_dataset=rows([1, 0, 2, 1]))

    stock, ours = evaluated(False), evaluated(True)
    for key in ("eval_reward", "eval_entropy", "eval_completions/mean_length"):
        assert ours[key] == pytest.approx(stock[key], rel=1e-4), key


def test_model_that_passes_our_attention_by_is_refused(
    random_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_prompt, "visibility", lambda *_, **__: {})  # as if every completion saw its neighbours
    stage = trainer(random_folder, tmp_path, rows([1, 0]), shared=True, max_steps=1)
    with pytest.raises(LiteError, match=r"other log-probs than TRL.*shared_prompt: false"):
        stage.train()


def test_unknown_family_falls_back_to_trl_with_one_line(
    random_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(families, "FAMILIES", ())
    stage = trainer(random_folder, tmp_path, rows([1, 1]), shared=True, max_steps=1)
    lines = [record.message for record in caplog.records if "once per completion" in record.message]
    assert lines == [
        "Prompts are computed once per completion, not once per group: this family's positions are not described in "
        "lite/models/families."
    ]
    assert not stage.shares_prompts
    stage.train()
