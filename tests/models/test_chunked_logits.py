"""Logits of a few positions at a time: the same log-probs, entropies and gradients, and less memory."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from datasets import Dataset
from peft import PeftModel, get_peft_model
from phases import TensorMemory
from tiny_families import FAMILIES
from trl.trainer.utils import selective_log_softmax_and_entropy

from lite.config.model import ModelConfig
from lite.config.runs import StageConfig
from lite.models import chunked_logits, shared_prompt
from lite.models.inputs import encode, vision_tokens
from lite.models.layers import base_of
from lite.models.loading import load_model, lora_config
from lite.schema import LiteError
from lite.train.trainer import StageTrainer

GROUP, LENGTH = 3, 6


@pytest.fixture(scope="module")
def tiny() -> tuple[PeftModel, object]:
    base, processor = load_model(ModelConfig(load_in_4bit=False))
    lora = lora_config(ModelConfig(lora_r=4), base)
    lora.init_lora_weights = False
    torch.manual_seed(0)
    return get_peft_model(base, lora, adapter_name="stage1").train(), processor


def rows_of(processor) -> tuple[torch.Tensor, torch.Tensor]:
    """(ids, mask) of two prompts with three completions each, of different lengths."""
    prompts = [
        [{"role": "user", "content": [{"type": "text", "text": t}]}] for t in ("Which flag?", "Is it red or so?")
    ]
    encoded = encode(processor, prompts, [])
    ids, mask = (encoded[name].repeat_interleave(GROUP, 0) for name in ("input_ids", "attention_mask"))
    generator = torch.Generator().manual_seed(1)
    seen = (torch.arange(LENGTH) < torch.tensor([6, 1, 4, 2, 6, 5])[:, None]).long()
    completions = torch.randint(300, 500, (2 * GROUP, LENGTH), generator=generator) * seen
    return torch.cat([ids, completions], 1), torch.cat([mask, seen], 1)


def computed(model: PeftModel, processor, entropy_learns: bool = True):
    """Log-probs, entropies, and the gradients of both together."""
    model.zero_grad()
    ids, mask = rows_of(processor)
    log_softmax = partial(
        selective_log_softmax_and_entropy, temperature=0.7, entropy_requires_grad=entropy_learns
    )  # fmt: skip
    with shared_prompt.attending(model):
        logps, entropies = shared_prompt.group_log_probs(model, ids, mask, LENGTH, GROUP, None, log_softmax)
        weights = torch.randn(logps.shape, generator=torch.Generator().manual_seed(2))
        (weights * (logps + 0.3 * entropies)).sum().backward()
    return (
        logps.detach(),
        entropies.detach(),
        {n: w.grad.clone() for n, w in model.named_parameters() if w.requires_grad},
    )


def assert_close_by_norm(ours: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    largest = max(gradient.norm() for gradient in expected.values())
    for name, gradient in expected.items():
        assert (ours[name] - gradient).norm() <= 1e-5 * gradient.norm() + 2e-6 * largest, name


@pytest.mark.parametrize("positions", [1, 5])
@pytest.mark.parametrize("entropy_learns", [True, False])
def test_chunks_give_what_all_logits_give(tiny, monkeypatch: pytest.MonkeyPatch, positions, entropy_learns) -> None:
    model, processor = tiny
    head = base_of(model).get_output_embeddings()
    expected = computed(model, processor, entropy_learns)
    calls = []
    hook = head.register_forward_hook(lambda module, args, result: calls.append(result.shape))
    monkeypatch.setattr(chunked_logits, "AT_ONCE", positions * 4 * head.out_features)
    ours = computed(model, processor, entropy_learns)
    hook.remove()
    assert calls
    assert all(shape[-1] == 2 for shape in calls)  # log-prob and entropy, no logits
    for some, others in zip(ours[:2], expected[:2], strict=True):
        torch.testing.assert_close(some, others, atol=1e-5, rtol=0)
        assert others.std() > 0.1
    assert max(gradient.norm() for gradient in expected[2].values()) > 0.1
    assert_close_by_norm(ours[2], expected[2])
    assert "forward" not in vars(head)


def test_few_logits_are_computed_as_before(tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunked_logits, "_in_chunks", lambda *_: pytest.fail("in chunks"))
    computed(*tiny)


def test_logits_that_change_behind_the_output_layer_are_noticed(tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    model, _ = tiny
    monkeypatch.setattr(chunked_logits, "AT_ONCE", 1)
    hidden = torch.randn(2, 3, base_of(model).config.text_config.hidden_size)
    head = base_of(model).get_output_embeddings()
    tokens = torch.ones(2, 3, dtype=torch.long)
    log_softmax = partial(selective_log_softmax_and_entropy, temperature=1.0)
    logps, _ = chunked_logits.log_probs(model, log_softmax, tokens, lambda: head(hidden))
    torch.testing.assert_close(logps, head(hidden).log_softmax(-1)[..., 1])
    with pytest.raises(LiteError, match="does something to its logits"):
        chunked_logits.log_probs(model, log_softmax, tokens, lambda: head(hidden).tanh())
    assert "forward" not in vars(head)


@pytest.mark.parametrize("family", ["gemma3", pytest.param("gemma4", marks=pytest.mark.slow)])
def test_rows_that_repeat_their_prompt_are_chunked_too(family: str, tmp_path: Path, monkeypatch) -> None:
    """Gemma 4 caps its logits; both are trained in TRL's way."""
    FAMILIES[family](tmp_path / "model")
    base, processor = load_model(ModelConfig(model_name_or_path=str(tmp_path / "model"), load_in_4bit=False))
    lora = lora_config(ModelConfig(lora_r=4), base)
    lora.init_lora_weights = False
    model = get_peft_model(base, lora, adapter_name="stage1")
    config = StageConfig(
        output_dir=str(tmp_path / "run"), per_device_train_batch_size=6, num_generations=3, max_steps=1,
        report_to="none", bf16=False, use_cpu=True,
        generation_kwargs={"suppress_tokens": vision_tokens(base, processor)},
    )  # fmt: skip
    prompt = [{"role": "user", "content": [{"type": "text", "text": "Which?"}]}]
    trainer = StageTrainer(
        model=model, reward_funcs=[lambda completions, **_: [0.0] * len(completions)], args=config,
        train_dataset=Dataset.from_dict({"prompt": [prompt] * 2, "images": [[], []]}), processing_class=processor,
    )  # fmt: skip
    assert not trainer.shares_prompts
    ids, mask = rows_of(processor)
    extra = {"mm_token_type_ids": torch.zeros_like(ids)} if family == "gemma4" else {}
    extra |= {"token_type_ids": torch.zeros_like(ids)} if family == "gemma3" else {}
    full = trainer._full_logits_logps
    rows_at_once = []

    def recorded(model, input_ids, *args, batch_size=None, **kwargs):
        rows_at_once.append(batch_size)
        return full(model, input_ids, *args, batch_size=batch_size, **kwargs)

    monkeypatch.setattr(trainer, "_full_logits_logps", recorded)

    def computed_by_trl():
        model.zero_grad()
        logps, entropies, _ = trainer._get_per_token_logps_and_entropies(
            model, ids, mask, LENGTH, batch_size=6, compute_entropy=True, **extra
        )
        logps, entropies = (values * mask[:, -LENGTH:] for values in (logps, entropies))
        (logps * torch.randn(logps.shape, generator=torch.Generator().manual_seed(2))).sum().backward()
        return (
            logps.detach(),
            entropies.detach(),
            {n: w.grad.clone() for n, w in model.named_parameters() if w.requires_grad},
        )

    expected = computed_by_trl()
    with torch.no_grad():
        scored = trainer._get_per_token_logps_and_entropies(model, ids, mask, LENGTH, batch_size=6, **extra)[0]
    assert rows_at_once == [6, 6]
    monkeypatch.setattr(chunked_logits, "AT_ONCE", 2 * (LENGTH + 1) * 4 * chunked_logits.vocabulary_of(model))
    ours = computed_by_trl()
    assert rows_at_once == [6, 6]  # another way was taken
    for some, others in zip(ours[:2], expected[:2], strict=True):
        torch.testing.assert_close(some, others, atol=1e-5, rtol=0)
    assert_close_by_norm(ours[2], expected[2])
    with torch.no_grad():
        few = trainer._get_per_token_logps_and_entropies(model, ids, mask, LENGTH, batch_size=6, **extra)[0]
    assert rows_at_once[2:] == [2]
    torch.testing.assert_close(few, scored, atol=1e-5, rtol=0)
    assert not trainer.use_liger_kernel


def test_memory_is_that_of_a_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of every tensor that a forward and backward pass makes, with a vocabulary of 30,000 and 200 positions."""
    head = torch.nn.Linear(16, 30_000, bias=False).requires_grad_(False)
    monkeypatch.setattr(chunked_logits, "base_of", lambda model: SimpleNamespace(get_output_embeddings=lambda: head))
    hidden = torch.randn(2, 100, 16, requires_grad=True)
    tokens = torch.randint(30_000, (2, 100))

    def peak() -> int:
        with TensorMemory() as memory:
            logps, _ = chunked_logits.log_probs(head, log_softmax, tokens, lambda: head(hidden))
            logps.sum().backward()
            return memory.peak()

    def log_softmax(logits: torch.Tensor, tokens: torch.Tensor):
        return logits.log_softmax(-1).gather(-1, tokens[..., None])[..., 0], None

    whole = peak()
    assert whole > 2 * 200 * 30_000 * 4
    monkeypatch.setattr(chunked_logits, "AT_ONCE", 10 * 30_000 * 4)
    assert peak() < whole / 8
