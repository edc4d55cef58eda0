"""Decoding completions that share a prompt: on buffers made once and, on a GPU, with each position as one CUDA graph.

A position of a 4-bit model is thousands of small operations. A GPU runs each in less time than it takes to launch it,
so sampling waits for launches. A CUDA graph launches all of them at once; it needs tensors that stay where they are and
shapes that do not change, and it must never wait for the host.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch
from transformers import (
    Cache,
    DynamicCache,
    GenerationConfig,
    LogitsProcessorList,
    PreTrainedModel,
    StoppingCriteriaList,
)
from transformers.cache_utils import DynamicLayer, StaticLayer

from lite.models.layers import base_of
from lite.models.shared_attention import PromptCache
from lite.models.shared_state import forked_cache
from lite.schema import first_line

logger = logging.getLogger(__name__)

# Positions between two looks at whether all completions have ended, by device: a look waits for the GPU.
CHECKED_EVERY = {"cuda": 16}
WORTH_A_GRAPH = 32  # positions: capturing takes as long as four

# (tokens [rows], n): the logits [rows, V] behind the n-th token of every completion
Step = Callable[[torch.Tensor, int], torch.Tensor]


class Completions(DynamicCache):
    """Keys and values of completions, in buffers [rows, heads, C, d] of all their positions.

    Args:
        prompts: The layers of the prompts' cache, [U, heads, P, d] each.
        group_size: G; there are U * G rows.
        length: C.
    """

    def __init__(self, prompts: list[DynamicLayer | StaticLayer], group_size: int, length: int):
        super().__init__()
        self.buffers = [
            tuple(
                states.new_zeros(len(states) * group_size, states.shape[1], length, states.shape[3])
                for states in (layer.keys, layer.values)
            )
            for layer in prompts
        ]
        self.step = torch.zeros(1, dtype=torch.long, device=prompts[0].keys.device)  # where the next token goes
        self.shown = length  # positions that attention gets to see

    def update(self, key_states, value_states, layer_idx, *_, **__):
        keys, values = self.buffers[layer_idx]
        keys.index_copy_(2, self.step, key_states)
        values.index_copy_(2, self.step, value_states)
        return keys[:, :, : self.shown], values[:, :, : self.shown]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return 0  # positions are given, and nothing here is masked by transformers


def sample(
    model: PreTrainedModel,
    input_ids: torch.Tensor,
    logits_processor: LogitsProcessorList,
    stopping_criteria: StoppingCriteriaList,
    generation_config: GenerationConfig,
    *,
    group_size: int,
    log_probs: list[torch.Tensor] | None = None,
    **inputs,
) -> torch.Tensor:
    """The loop of transformers' `_sample`, with the rows multiplied behind the prefill and not in front of it.

    On a GPU, positions up to the next of `CHECKED_EVERY` are drawn in vain behind the last end; they are cut off.
    """
    logits = model(input_ids=input_ids, **inputs).logits[:, -1].repeat_interleave(group_size, 0)
    length = generation_config.max_length - input_ids.shape[1]
    step = _step(model, inputs, group_size, length)
    every = CHECKED_EVERY.get(logits.device.type, 1)
    sequences = input_ids.repeat_interleave(group_size, 0)
    running = torch.ones(len(sequences), dtype=torch.bool, device=logits.device)
    lengths = torch.zeros(len(sequences), dtype=torch.long, device=logits.device)
    for n in range(length):
        check = n % every == every - 1 or n == length - 1
        scores = logits_processor(sequences, logits.float())
        tokens = _draw(scores.softmax(-1), check) if generation_config.do_sample else scores.argmax(-1)
        tokens = torch.where(running, tokens, generation_config._pad_token_tensor)
        if log_probs is not None:
            log_probs.append(scores.log_softmax(-1).gather(1, tokens[:, None])[:, 0])
        sequences = torch.cat([sequences, tokens[:, None]], 1)
        lengths += running
        running = running & ~stopping_criteria(sequences, None)
        if n == length - 1 or (check and not running.any()):
            break
        logits = step(tokens, n)
    return sequences[:, : input_ids.shape[1] + int(lengths.max())]


def _draw(probabilities: torch.Tensor, check: bool) -> torch.Tensor:
    """A token of each row, [rows, V] -> [rows]: what `torch.multinomial` draws, with its check or without.

    The check, that probabilities are finite, waits for the GPU.
    """
    if check:
        return torch.multinomial(probabilities, 1)[:, 0]
    return (probabilities / torch.empty_like(probabilities).exponential_()).argmax(-1)


def _step(model: PreTrainedModel, inputs: dict, group_size: int, length: int) -> Step:
    """How to go on behind the prompts, whose forward filled the cache among `inputs`."""
    mask = inputs["attention_mask"].bool()
    cached: Cache = inputs["past_key_values"]
    width = mask.shape[1]
    # Static ones are Unsloth's choice; they are longer than the prompts.
    held = [layer if isinstance(layer, DynamicLayer | StaticLayer) else None for layer in cached.layers]
    prompts = PromptCache(
        [layer and (layer.keys[:, :, :width], layer.values[:, :, :width]) for layer in held],
        None if mask.all() else ~mask,
    )
    places = inputs["position_ids"]
    places = places if places.ndim == 3 else places[None]
    start = places.amax((0, 2)).repeat_interleave(group_size)

    def forward(tokens: torch.Tensor, position: torch.Tensor, cache: Cache, prompts: PromptCache) -> torch.Tensor:
        position = position.expand(len(places), -1)[..., None]
        return model(
            input_ids=tokens[:, None],
            position_ids=position if len(position) > 1 else position[0],
            past_key_values=cache,
            prompt_cache=prompts,
            use_cache=True,
        ).logits[:, -1]

    # By `type`: a subclass may forget what leaves its window, or keep a state as well.
    if any(type(layer) not in (DynamicLayer, StaticLayer) for layer in cached.layers):
        grown = forked_cache(cached, base_of(model).config.get_text_config(), group_size)
        return lambda tokens, n: forward(tokens, start + n + 1, grown, prompts)
    cache = Completions(held, group_size, length)
    if length >= WORTH_A_GRAPH and start.device.type in CAPTURING:
        replayed = _replayed(forward, start, cache, prompts)
        if replayed:
            return replayed

    def growing(tokens: torch.Tensor, n: int) -> torch.Tensor:
        cache.step.fill_(n)
        cache.shown = n + 1
        return forward(tokens, start + n + 1, cache, prompts)

    return growing


def _replayed(forward: Callable, start: torch.Tensor, cache: Completions, prompts: PromptCache) -> Step | None:
    """The step as a graph that is captured now; None where that fails, which is said once and not tried again."""
    places = torch.arange(cache.shown, device=start.device)
    tokens, position = torch.zeros_like(start), start + 1

    def run() -> torch.Tensor:
        return forward(tokens, position, cache, prompts._replace(unsaid=places > cache.step))

    def put(new: torch.Tensor, n: int) -> None:
        tokens.copy_(new)
        torch.add(start, n + 1, out=position)
        cache.step.fill_(n)

    try:
        replay = CAPTURING[start.device.type](run)
        # Once more with other inputs: a graph that missed one of them would sample from a wrong distribution.
        put(tokens + 1, 1)
        expected = run().float()
        off = (replay().float() - expected).abs().mean() / expected.std()
        if not off < 0.05:
            raise RuntimeError(f"the graph's logits are off by {off:.2g} of their spread")
    except RuntimeError as error:  # out of memory is one, too
        del CAPTURING[start.device.type]
        reason = first_line(error)
        logger.warning("Sampling goes on without a CUDA graph, which takes several times as long: %s", reason)
        return None

    def step(new: torch.Tensor, n: int) -> torch.Tensor:
        put(new, n)
        return replay()

    return step


def capture(run: Callable[[], torch.Tensor]) -> Callable[[], torch.Tensor]:
    """`run` as a CUDA graph. What it reads must stay where it is; what it returns is overwritten by the next call."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(2):  # libraries set themselves up at the first call
            run()
    torch.cuda.current_stream().wait_stream(side)
    graph, before = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
    try:
        # Other threads may go on meanwhile: one pins the next batch's memory.
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            result = run()
    except RuntimeError:
        # A capture that fails leaves its stream and the generator behind as if it still went on.
        torch.cuda.set_stream(before)
        generator = torch.cuda.default_generators[before.device_index]
        generator.graphsafe_set_state(generator.clone_state())
        raise

    def replay() -> torch.Tensor:
        graph.replay()
        return result

    return replay


CAPTURING = {"cuda": capture}  # by device
