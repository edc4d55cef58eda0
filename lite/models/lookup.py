"""Prompt lookup: where an answer repeats its documents, several tokens are checked in one forward pass.

What comes next is guessed by finding the last few tokens earlier in the text, and the model says how much of the guess
is what it would have written itself. So the text is the same, after fewer passes (`benchmarks/lookup.py`).
"""

from __future__ import annotations

import torch
from peft import PeftModel
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from lite.models.layers import base_of

SETTINGS = {"prompt_lookup_num_tokens": 8, "max_matching_ngram_size": 3}


def lookup_settings(model: PreTrainedModel | PeftModel) -> dict[str, int]:
    """Of a `GenerationConfig` that decodes one prompt greedily; none where the text could become another.

    That is so in 16 bits, where several tokens at once round otherwise than one by one, and where a wrong guess cannot
    be taken back: a state or a sliding window has forgotten what was before it.
    """
    base = base_of(model)
    cache = DynamicCache(config=base.config.get_text_config())
    exact = base.dtype == torch.float32 and all(type(layer) is DynamicLayer for layer in cache.layers)
    return SETTINGS if exact else {}
