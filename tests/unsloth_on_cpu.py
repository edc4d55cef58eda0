"""A pytest plugin: the `unsloth` cases of tests/test_gpu.py without a GPU, as far as a CPU can tell.

Unsloth imports on a CPU if it is allowed to, and asks a card for its properties while it loads; those are made up here.
What this leaves out: 4-bit weights, Triton's kernels, and Unsloth's compilation, which `lite.models.loading` switches
off. tests/models/test_loading.py runs it where LITE_UNSLOTH names the Python of an environment that has Unsloth.
"""

from __future__ import annotations

import os
from types import SimpleNamespace

os.environ |= {"UNSLOTH_ALLOW_CPU": "1", "UNSLOTH_COMPILE_DISABLE": "1", "UNSLOTH_DISABLE_STATISTICS": "1"}

import pytest
import torch

import lite.train.trainer  # noqa: F401  TRL's trainers, before Unsloth rewrites them
from lite.models import loading

CARD = SimpleNamespace(
    total_memory=24 * 2**30, name="none", major=8, minor=9, multi_processor_count=128, gcnArchName=""
)
ANSWERS = {
    "get_device_properties": CARD, "get_device_capability": (8, 9), "mem_get_info": (20 * 2**30, 24 * 2**30),
    "current_device": 0, "empty_cache": None, "synchronize": None,
}  # fmt: skip


def load(path: str, config: object) -> tuple:
    """`load_with_unsloth` in 32 bits on the CPU."""
    with pytest.MonkeyPatch.context() as patch:
        for name, answer in ANSWERS.items():
            patch.setattr(torch.cuda, name, lambda *_, answer=answer, **__: answer)
        from unsloth import FastVisionModel

        return FastVisionModel.from_pretrained(
            path, load_in_4bit=False, use_gradient_checkpointing=True, device_map={"": "cpu"}, dtype=torch.float32
        )


loading.load_with_unsloth = load
loading.choose_backend = lambda backend: "unsloth" if backend == "unsloth" else "transformers"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        item.own_markers = [mark for mark in item.own_markers if mark.name != "skipif"]
