"""What the memory of a model depends on, measured on the model without its weights: in seconds, and in no memory."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from functools import lru_cache

import torch
from transformers import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING, AutoConfig, DynamicCache, PretrainedConfig
from transformers.cache_utils import LinearAttentionCacheLayerMixin

from lite.hub import give_up_early
from lite.models.families import family_of
from lite.models.layers import language_layers, language_prefix, skeleton
from lite.models.published import published

TRIED = 2  # tokens


@dataclass(frozen=True)
class Shape:
    """Counts of numbers, whatever their bytes.

    Args:
        linears: (inputs, outputs) of the language model's linear layers: they are quantised and adapted.
        others: All other weights: embeddings, norms, vision tower.
        hidden, layers, vocabulary: Of the language model.
        ff: The widest that a token gets inside one of `linears`, in the feed-forward.
        heads: What the query heads of a token hold together.
        cached: Keys and values of a token in all layers, by the window that they look back (None: to the start).
        state: What the layers with a state keep for a completion.
        entering: Queries, keys and values of a token in one of those that are recurrent.
        recurrent_heads: Heads of one of those.
        vision: What a patch of an image is inside a layer of the vision tower.
        patches: Patches of one token of an image.
        token_pixels: Pixels of one token of an image.
        any_size: Whether an image may have any number of pixels, see `Family`.
        shared: Whether the completions of a group share one computation of their prompt.
    """

    linears: tuple[tuple[int, int], ...]
    others: int
    hidden: int
    layers: int
    vocabulary: int
    ff: int
    heads: int
    cached: tuple[tuple[int | None, int], ...]
    state: int
    entering: int
    recurrent_heads: int
    vision: int
    patches: int
    token_pixels: int
    any_size: bool
    shared: bool

    def quantised(self) -> int:
        """Weights of the linear layers."""
        return sum(inputs * outputs for inputs, outputs in self.linears)

    def adapter(self, rank: int) -> int:
        """Weights of one LoRA adapter."""
        return rank * sum(inputs + outputs for inputs, outputs in self.linears)

    def cache(self, tokens: int, prompt: int = 0) -> int:
        """Keys and values of `tokens` tokens behind `prompt` others, which are not counted."""
        seen = ((tokens if window is None else max(0, min(tokens, window - prompt)), of) for window, of in self.cached)
        return sum(count * numbers for count, numbers in seen)


def shape_of(model: str) -> Shape | None:
    """The shape of a hub id or a local folder, or None where nothing is known about it, or about its family."""
    give_up_early(model)
    try:
        config = AutoConfig.from_pretrained(model)
    except (OSError, ValueError):
        return _published_shape(model)
    return shape_of_config(config)


@lru_cache
def _published_shape(model: str) -> Shape | None:
    config = published(model)
    return None if config is None else shape_of_config(config)


def shape_of_config(config: PretrainedConfig) -> Shape | None:
    """The shape of a model's configuration; None where its family is not described."""
    family = family_of(config)
    if family.token_side is None or type(config) not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
        return None
    model, text = skeleton(config).eval(), config.get_text_config()
    layers, prefix = language_layers(model), language_prefix(model)
    linears = tuple((layer.in_features, layer.out_features) for layer in layers.values())
    token_side, patch = family.token_side(config), _side(config.vision_config.patch_size)
    cached, state, entering, recurrent_heads = _cache(model, text)
    return Shape(
        linears=linears,
        others=sum(weight.numel() for weight in model.parameters()) - sum(a * b for a, b in linears),
        hidden=text.hidden_size,
        layers=text.num_hidden_layers,
        vocabulary=model.get_output_embeddings().out_features,
        ff=max(max(size) for size in linears),
        heads=text.num_attention_heads * _head_size(text),
        cached=cached,
        state=state,
        entering=entering,
        recurrent_heads=recurrent_heads,
        vision=_vision(model, prefix),
        patches=round((token_side / patch) ** 2),
        token_pixels=round(token_side**2),
        any_size=family.any_size,
        shared=family.positions is not None,
    )


def _side(patch: int | list[int]) -> int:
    return patch if isinstance(patch, int) else patch[0]


def _head_size(text: PretrainedConfig) -> int:
    return text.to_dict().get("head_dim") or text.hidden_size // text.num_attention_heads


def _cache(model, text: PretrainedConfig) -> tuple[tuple[tuple[int | None, int], ...], int, int, int]:
    """`cached`, `state`, `entering` and `recurrent_heads` of a shape."""
    cache = DynamicCache(config=text)
    with torch.no_grad(), torch.device("meta"):
        model.get_decoder()(input_ids=torch.ones(1, TRIED, dtype=torch.long), past_key_values=cache, use_cache=True)
    numbers: dict[int | None, int] = defaultdict(int)
    states = entering = heads = 0
    for layer in cache.layers:
        if isinstance(layer, LinearAttentionCacheLayerMixin):
            kept = [*layer.conv_states.values(), *layer.recurrent_states.values()]
            states += sum(state.numel() for state in kept if state is not None)
            for state in layer.recurrent_states.values():
                if state is not None:
                    heads = state.shape[1]
                    entering = max(of.shape[1] for of in layer.conv_states.values() if of is not None)
        elif layer.is_initialized:
            window = layer.sliding_window if layer.is_sliding else None
            numbers[window] += (layer.keys.numel() + layer.values.numel()) // TRIED
    return tuple(numbers.items()), states, entering, heads


def _vision(model, prefix: str) -> int:
    """Numbers of a patch that one layer of the vision tower computes: norms, queries, keys, values, feed-forward."""
    head = model.get_output_embeddings()
    sizes = Counter(
        (min(module.in_features, module.out_features), max(module.in_features, module.out_features))
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and module is not head and not name.startswith(f"{prefix}.")
    )
    often = max(sizes.values(), default=0) / 2  # connectors occur once
    return max((4 * small + 2 * large for (small, large), count in sizes.items() if count >= often), default=0)
