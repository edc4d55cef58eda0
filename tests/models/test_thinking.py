"""Models whose chat template opens a chain of thought: at once Yes or No in stage 1, a whole chain in stage 2."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from peft import get_peft_model
from rich.console import Console
from tiny_families import FAMILIES

from lite.config.model import ModelConfig
from lite.config.runs import StageConfig
from lite.models.inputs import encode, opened_tag, vision_tokens, without_thinking
from lite.models.loading import load_model, lora_config
from lite.schema import Document, LiteError
from lite.stages.answer import arrange, complete, say, say_streaming
from lite.stages.filter import answer_tokens, score
from lite.stages.prompts import stage1_prompt, stage2_prompt
from lite.train.cold_start import check_imitable
from lite.train.dry_run import lengths_or_guess
from lite.train.trainer import StageTrainer

TEXT = Document("t", "text", "Chad", "The capital of Chad is N'Djamena.")
QUESTION = "What is the capital of Chad?"


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("thinking")
    FAMILIES["qwen3_5_think"](folder)
    return load_model(ModelConfig(model_name_or_path=str(folder), load_in_4bit=False))


def test_stage_1_is_scored_behind_a_closed_chain(loaded) -> None:
    model, processor = loaded
    assert opened_tag(processor) == "<think>"
    assert opened_tag(processor, **without_thinking(processor)) == ""
    inputs = encode(processor, [stage1_prompt(QUESTION, TEXT)], [TEXT], **without_thinking(processor))
    assert processor.tokenizer.decode(inputs["input_ids"][0]).endswith("assistant\n<think>\n\n</think>\n\n")
    yes, no = answer_tokens(processor)
    model.eval()
    with torch.no_grad():
        logits = model(**inputs).logits[0, -1]
    expected = torch.sigmoid((logits[yes] - logits[no]).double()).item()
    np.testing.assert_allclose(score(model, processor, [(QUESTION, TEXT)], 2000), [expected], atol=1e-6)


def test_dry_run_counts_the_prompts_that_each_stage_has(loaded) -> None:
    model, processor = loaded
    settings = ModelConfig(model_name_or_path=model.name_or_path)
    prompt, quiet = stage1_prompt(QUESTION, TEXT), Console(quiet=True)
    for at_once, template in ((True, without_thinking(processor)), (False, {})):
        counted = lengths_or_guess([prompt], [[TEXT]], settings, None, quiet, at_once)
        assert counted == [encode(processor, [prompt], [TEXT], **template)["input_ids"].shape[1]]


def test_stage_2_gets_back_the_tag_that_the_template_opened(loaded) -> None:
    model, processor = loaded
    listing = arrange(QUESTION, [TEXT])
    (said,) = say(model, processor, [listing], 2000, 8)
    assert said.startswith("<think>")
    assert "".join(say_streaming(model, processor, listing, 2000, 8)) == said
    (answered,) = complete(model, processor, [stage1_prompt(QUESTION, TEXT)], [[TEXT]], 4, thinking=False)
    assert not answered.startswith("<think>")


def test_rewards_of_stage_2_see_the_opened_tag(loaded, tmp_path: Path) -> None:
    base, processor = loaded
    seen = []

    def reward(completions: list[list[dict]], **_: object) -> list[float]:
        seen.extend(completion[0]["content"] for completion in completions)
        return [float(i) for i in range(len(completions))]

    for template, opened in ((None, True), (without_thinking(processor), False)):
        seen.clear()
        config = StageConfig(
            output_dir=str(tmp_path), per_device_train_batch_size=4, num_generations=2, max_completion_length=4,
            max_steps=1, save_strategy="no", report_to="none", bf16=False, use_cpu=True,
            chat_template_kwargs=template, generation_kwargs={"suppress_tokens": vision_tokens(base, processor)},
        )  # fmt: skip
        rows = Dataset.from_dict({"prompt": [stage2_prompt(QUESTION, [TEXT])] * 2, "images": [[], []]})
        model = get_peft_model(base, lora_config(ModelConfig(), base), adapter_name=f"a{opened}")
        StageTrainer(
            model=model, reward_funcs=[reward], args=config, train_dataset=rows, processing_class=processor
        ).train()
        base = model.unload()
        assert len(seen) == 4
        assert all(text.startswith("<think>") == opened for text in seen)


def test_cold_start_is_refused_where_it_would_teach_another_form(loaded, random_model) -> None:
    with pytest.raises(LiteError, match="cold_start_steps: 0"):
        check_imitable(loaded[1])
    check_imitable(random_model[1])
