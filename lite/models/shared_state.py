"""Layers that keep a state instead of keys and values (gated delta rule, short convolutions), with a shared prompt.

In a packed row, such a layer reads the prompt once; then each completion goes on from a copy of the prompt's state.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence
from transformers import Cache, DynamicCache, PreTrainedModel
from transformers.cache_utils import LinearAttentionCacheLayerMixin

from lite.models.families import family_of
from lite.models.shared_attention import Packed


def stateful(model: PreTrainedModel) -> bool:
    """Whether the model, without adapters around it, has layers with a state."""
    return bool(family_of(model.config).state_layers)


@contextmanager
def forking(model: PreTrainedModel) -> Iterator[None]:
    """Inside, the layers with a state take packed rows. Nothing changes for other calls, or for other families."""
    fork_states(model)
    try:
        yield
    finally:
        for module in model.modules():
            if isinstance(module.__dict__.get("forward"), _Forking):
                module.forward.hook.remove()
                del module.forward


def fork_states(model: PreTrainedModel) -> None:
    """`forking` for good."""
    names = family_of(model.config).state_layers
    for layer in model.get_decoder().layers if names else ():
        for name, mixer in layer.named_children():
            if name in names and not isinstance(mixer.__dict__.get("forward"), _Forking):
                mixer.forward = _Forking(layer, mixer, model.config.get_text_config())


class _Forking:
    """The forward of a layer with a state; `packed` comes from the decoder layer, since not all hand it on."""

    def __init__(self, layer: torch.nn.Module, mixer: torch.nn.Module, config):
        self.forward, self.index, self.config = mixer.forward, mixer.layer_idx, config
        self.packed: Packed | None = None
        self.hook = layer.register_forward_pre_hook(self._remember, with_kwargs=True)

    def _remember(self, layer: torch.nn.Module, args: tuple, kwargs: dict) -> None:
        self.packed = kwargs.get("packed")

    def __call__(self, hidden_states: torch.Tensor, **kwargs) -> torch.Tensor:
        kwargs.pop("packed", None)
        if self.packed is None:
            return self.forward(hidden_states=hidden_states, **kwargs)
        self.packed.layers += 1
        prompt, lengths = self.packed.prompt, self.packed.completions
        cache_name = "cache_params" if "cache_params" in kwargs else "past_key_values"
        cache = DynamicCache(config=self.config)
        outputs = []
        if prompt:
            outputs.append(self.forward(hidden_states=hidden_states[:, :prompt], **{cache_name: cache}))
        parts = [part for part in hidden_states[0, prompt:].split(lengths) if len(part)]
        if parts:
            _fork_with_graph(cache.layers[self.index], len(parts))
            # Of one token only, a forward would take the path that writes states in place.
            rows = pad_sequence([pad(part, (0, 0, 0, max(0, 2 - len(part)))) for part in parts], batch_first=True)
            rest = self.forward(hidden_states=rows, **{cache_name: cache if prompt else None})
            outputs += [row[None, : len(part)] for row, part in zip(rest, parts, strict=True)]
        return torch.cat(outputs, 1)


def _fork_with_graph(layer: LinearAttentionCacheLayerMixin, count: int) -> None:
    """The layer's states `count` times, connected to the graph; what the next forward would store is not kept."""
    fork(layer, layer, count)
    layer.update_recurrent_state = lambda states, *_, **__: states
    layer.update_conv_state = lambda states, state_idx=0, **_: torch.cat([layer.conv_states[state_idx], states], -1)


def fork(source: LinearAttentionCacheLayerMixin, target: LinearAttentionCacheLayerMixin, count: int) -> None:
    """Give `target` the states of `source` [U, ...], each `count` times: [U * count, ...]."""
    for name in ("conv_states", "recurrent_states"):
        states = getattr(source, name)
        copies = {i: None if state is None else state.repeat_interleave(count, 0) for i, state in states.items()}
        setattr(target, name, copies)
    for name in (
        "has_previous_state",
        "conv_kernel_size",
        "is_conv_states_initialized",
        "is_recurrent_states_initialized",
    ):
        setattr(target, name, dict(getattr(source, name)))
    target.device, target.dtype = source.device, source.dtype


def forked_cache(prompts: Cache, config, count: int) -> DynamicCache:
    """A cache for `count` completions of each prompt: without keys and values, but with the prompts' states."""
    cache = DynamicCache(config=config)
    for own, of_prompts in zip(cache.layers, prompts.layers, strict=True):
        if isinstance(of_prompts, LinearAttentionCacheLayerMixin):
            fork(of_prompts, own, count)
    return cache
