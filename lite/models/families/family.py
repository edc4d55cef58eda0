"""What tells a family of vision-language models apart, where the model itself does not tell it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from transformers import PretrainedConfig, PreTrainedModel, ProcessorMixin

# What a processor makes of the images of one prompt, or of several: the forward's keyword arguments for them.
Images = dict[str, torch.Tensor]


def in_line(model: PreTrainedModel, ids: torch.Tensor, mask: torch.Tensor, images: Images) -> torch.Tensor:
    """Positions [1, U, P] that count tokens, images' tokens too; the pads' are 0 and unused."""
    return (mask.long().cumsum(-1) - 1).clamp(min=0)[None]


def one_after_another(prompts: Sequence[Images], dim: int = 0) -> Images:
    """The images of several prompts, where a processor lays those of one out along the dimension `dim`."""
    return {name: torch.cat([images[name] for images in prompts], dim) for name in prompts[0]} if prompts else {}


@dataclass(frozen=True)
class Family:
    """How to treat the models of a family. Defaults are those of a family that nobody has described.

    Args:
        model_types: Those of `config.model_type`.
        limit_pixels: (processor, max_pixels): have the processor shrink images to at most so many pixels. Raises
            LiteError where the family cannot go so low. None: it is not known how, and `max_pixels` is refused.
        positions: (model, ids [U, P], mask [U, P], images of all U prompts) -> positions of left-padded prompts,
            [3, U, P] (time, height, width) or [1, U, P]. None: prompts are not shared.
        state_layers: Names, within a decoder layer, of modules that keep a state instead of keys and values.
        unshared: Why prompts are not shared.
        only_shared: TRL 1.14's own way, without the shared prompt, is wrong for this family.
        join_images: The images of several prompts, from those of each.
        vision_names: A regular expression of the added tokens that stand for pixels, beyond those that are found.
        left_out: Last names of linear layers of the language model that stay in 16 bits and get no LoRA.
        any_size: An image may have any number of pixels, within `max_pixels`; else it comes in tiles or steps.
        token_side: Pixels along a side of what one token shows of an image. None: memory is not estimated.
    """

    model_types: tuple[str, ...]
    limit_pixels: Callable[[ProcessorMixin, int], None] | None = None
    positions: Callable[[PreTrainedModel, torch.Tensor, torch.Tensor, Images], torch.Tensor] | None = None
    state_layers: tuple[str, ...] = ()
    unshared: str = "this family's positions are not described in lite/models/families"
    only_shared: bool = False
    join_images: Callable[[Sequence[Images]], Images] = one_after_another
    vision_names: str = ""
    left_out: tuple[str, ...] = ()
    any_size: bool = False
    token_side: Callable[[PretrainedConfig], float] | None = None
