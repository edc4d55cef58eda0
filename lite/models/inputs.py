"""From prompts to what a model reads, and which of its tokens stand for pixels."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache

from jinja2 import TemplateError
from PIL import Image
from transformers import BatchFeature, PreTrainedModel, ProcessorMixin

from lite.models.families import family_of
from lite.models.layers import base_of
from lite.schema import Document, LiteError

THINK = "<think>"
SIDE = 64  # pixels of the blank image that a processor is tried with
TEXT_TOKENS = ("bos_", "eos_", "pad_", "decoder_")  # what a configuration names besides the tokens of images


def encode(
    processor: ProcessorMixin, prompts: Sequence[list[dict]], documents: Sequence[Document], **template: object
) -> BatchFeature:
    """Tokens and pixels of a batch of prompts and of the images that they show, padded.

    It makes the call that TRL's trainer makes, so a prompt has the tokens here that it has in training.

    Args:
        processor: Its tokenizer's side of padding is used.
        prompts: Conversations with `{"type": "image"}` placeholders.
        documents: Those that the prompts show, one prompt's behind another's; only those with an image count.
        template: Arguments of the chat template.
    """
    shown = iter([document.load_image() for document in documents if document.image is not None])
    return processor.apply_chat_template(
        [[_with_images(turn, shown) for turn in joined(prompt)] for prompt in prompts],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        processor_kwargs={"padding": True, "return_tensors": "pt"},
        **template,
    )


def joined(prompt: Sequence[dict]) -> list[dict]:
    """The conversation with neighbouring texts as one: some templates (Gemma's) trim each, which would glue words."""
    turns = []
    for turn in prompt:
        parts: list[dict] = []
        for part in turn["content"]:
            if part["type"] == "text" and parts and parts[-1]["type"] == "text":
                part = {"type": "text", "text": parts.pop()["text"] + part["text"]}
            parts.append(part)
        turns.append(turn | {"content": parts})
    return turns


def rendered(processor: ProcessorMixin, prompts: Sequence[list[dict]], **template: object) -> list[str]:
    """The text of each prompt, with placeholders where images are.

    Args:
        template: Arguments of the chat template.
    """
    conversations = [joined(prompt) for prompt in prompts]
    return processor.apply_chat_template(
        conversations, add_generation_prompt=True, tokenize=False, processor_kwargs={"padding": False}, **template
    )


def _with_images(turn: dict, images: Iterator[Image.Image]) -> dict:
    parts = [part | {"image": next(images)} if part["type"] == "image" else part for part in turn["content"]]
    return turn | {"content": parts}


def without_thinking(processor: ProcessorMixin) -> dict[str, bool]:
    """The chat template's arguments for an answer that begins at once; none where the template knows no thinking."""
    return {"enable_thinking": False} if "enable_thinking" in (processor.chat_template or "") else {}


def opened_tag(processor: ProcessorMixin, **template: object) -> str:
    """The tag that the template has opened for the model, which a completion then lacks: `<think>`, or none."""
    ending = _render(processor, {"type": "text", "text": "x"}, add_generation_prompt=True, **template).rstrip()
    return THINK if ending.endswith(THINK) else ""


def image_tokens(processor: ProcessorMixin, height: int, width: int) -> int:
    """Tokens that an image adds to a prompt beyond its placeholder. Measured on a blank one, which is exact for all."""
    filled, placeholder = _blank(processor, height, width)
    return len(filled) - len(placeholder)


def vision_tokens(model: PreTrainedModel, processor: ProcessorMixin) -> list[int]:
    """Tokens that stand for pixels. One of them in a completion would claim pixels that do not exist.

    They are those that the configuration names, those that the processor writes where an image is, and those that the
    family knows by a pattern.

    Raises:
        LiteError: They cannot be told, so that the model could generate them.
    """
    config, tokenizer = base_of(model).config, processor.tokenizer
    filled, _ = _blank(processor, SIDE, SIDE)
    image = getattr(config, "image_token_id", None)
    if image not in filled:
        raise LiteError(
            f"An image leaves no token {image} in a prompt of this {config.model_type}, so lite cannot keep the model "
            "from generating the tokens that stand for pixels. Does the processor belong to the model?"
        )
    text = tokenizer(_render(processor, {"type": "text", "text": "x"}), add_special_tokens=False)["input_ids"]
    written = set(filled) & set(tokenizer.all_special_ids) - set(text)
    named = {
        value
        for name, value in config.to_dict().items()
        if re.search("_token_(id|index)$", name) and not name.startswith(TEXT_TOKENS) and isinstance(value, int)
    }
    pattern = family_of(config).vision_names
    known = {number for token, number in tokenizer.get_added_vocab().items() if re.fullmatch(pattern, token)}
    return sorted({image} | written | named | known)


def limit_pixels(model: PreTrainedModel, processor: ProcessorMixin, max_pixels: int) -> None:
    """Have the processor shrink images to at most `max_pixels`.

    Raises:
        LiteError: It is not known how, or the family cannot go so low.
    """
    config = base_of(model).config
    limit = family_of(config).limit_pixels
    if limit is None:
        raise LiteError(
            f"lite does not know how images of {config.model_type} are limited to max_pixels ({max_pixels}). Leave "
            "max_pixels unset, which takes the processor's own limit, or describe the family in lite/models/families."
        )
    limit(processor, max_pixels)


def check_template(processor: ProcessorMixin) -> None:
    """Refuse a chat template that would not say what a prompt says.

    Raises:
        LiteError: It does not open the model's turn, or moves images away from the texts that they stand between.
    """
    parts = [{"type": "text", "text": "before"}, {"type": "image"}, {"type": "text", "text": "after"}]
    try:
        shown, opened = _render(processor, *parts), _render(processor, *parts, add_generation_prompt=True)
    except (TemplateError, ValueError, TypeError) as error:  # none at all, or one for texts alone
        raise LiteError(
            f"The processor's chat template cannot render a prompt with an image ({error}). Choose an instruct model "
            "for text and images."
        ) from error
    if opened == shown:
        raise LiteError(
            "The processor's chat template ignores add_generation_prompt, so the model would continue the question "
            "instead of answering it. Choose a model whose template opens the answer."
        )
    if not shown.partition("before")[2].partition("after")[0].strip():
        raise LiteError(
            "The processor's chat template moves images out of their place (LLaVA-OneVision's puts all of them first), "
            "so a prompt would no longer say which document an image belongs to. Choose a model of another family."
        )


@lru_cache(maxsize=10_000)
def _blank(processor: ProcessorMixin, height: int, width: int) -> tuple[list[int], list[int]]:
    """The tokens of a prompt with a blank image, and those of it with the placeholder alone."""
    text = _render(processor, {"type": "image"})
    filled = processor(text=text, images=[[Image.new("RGB", (width, height))]], add_special_tokens=False)
    return list(filled["input_ids"][0]), list(processor.tokenizer(text, add_special_tokens=False)["input_ids"])


def _render(processor: ProcessorMixin, *content: dict, **template: object) -> str:
    turn = {"role": "user", "content": list(content)}
    # Given no argument, SmolVLM's processor adds some and is warned by transformers for it.
    return processor.apply_chat_template([turn], tokenize=False, processor_kwargs={"padding": False}, **template)
