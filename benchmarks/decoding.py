"""Operations and waits per decoded position of GRPO's sampling, which is what a GPU's time goes into; counted on a CPU.

A GPU runs most operations of a decoded position faster than the host can launch them, so their number stands for time.
It does not depend on the width of a model: the depth of `qwen3-vl-4b` (36 layers) is extrapolated from 2 and 4 narrow
layers. 4 prompts of 8 completions; bfloat16; waits are those of the host for the GPU.

    python benchmarks/decoding.py        writes benchmarks/results/decoding.json and the table in docs/gpu.md

Systems: transformers' `generate`, with every prompt repeated; lite's loop as it was before static buffers, from the
commit `BEFORE` of this repository; the loop of today, as it runs where there is no graph; and the loop with the graph,
where a replay counts as one operation. On a CPU the graph's operations are run one by one, with the same results.
"""

from __future__ import annotations

import argparse
import collections
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import bitsandbytes as bnb
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import BitsAndBytesConfig, GenerationConfig, Qwen3VLConfig, Qwen3VLForConditionalGeneration

from lite.config.model import ModelConfig
from lite.models import shared_prompt
from lite.models.adapters import activate, add_adapter
from lite.models.layers import kept_in_16bit
from lite.models.loading import lora_config
from lite.runs import STAGE1, STAGE2

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks" / "results" / "decoding.json"
BEFORE = "4a85abd"
LAYERS, PROMPTS, GROUP, PROMPT_TOKENS = 36, 4, 8, 32
FEW, MANY = 48, 64  # positions: their difference is a whole round of looks for ends
ADAPTERS = (2, 1, 0)
# Operations that only name memory, and launch nothing.
VIEWS = set(
    "view _unsafe_view transpose t permute slice select expand unsqueeze squeeze split split_with_sizes detach alias "
    "as_strided unbind lift_fresh empty empty_like new_empty empty_strided new_empty_strided".split()
)
# Of the host for the GPU: a look at a value, and what multinomial and masked selection look at inside.
WAITS = {"_local_scalar_dense": 1, "nonzero": 1, "multinomial": 2}


class Count(TorchDispatchMode):
    """Counts what is dispatched inside, except in what `paused` runs."""

    def __init__(self):
        super().__init__()
        self.operations: collections.Counter = collections.Counter()
        self.pause = False

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if not self.pause:
            self.operations[function._schema.name.removeprefix("aten::")] += 1
        return function(*args, **(kwargs or {}))

    def paused(self, run):
        """`run`, counted as one operation."""

        def replay():
            self.operations["graph"] += not self.pause
            before, self.pause = self.pause, True
            try:
                return run()
            finally:
                self.pause = before

        return replay


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--before", action="store_true", help="Print the figures of the loop of the imported lite.")
    if parser.parse_args().before:
        print(json.dumps({str(adapters): per_position(lite_loop, adapters) for adapters in ADAPTERS}))
        return
    from lite.models import shared_decoding

    shared_decoding.CHECKED_EVERY |= {"cpu": shared_decoding.CHECKED_EVERY["cuda"]}
    systems = {"transformers": transformers_loop, "loop": sampling_loop, "graph": graph_loop}
    figures = {
        name: {str(adapters): per_position(run, adapters) for adapters in ADAPTERS} for name, run in systems.items()
    }
    result = {
        "layers": LAYERS,
        "rows": PROMPTS * GROUP,
        "before": BEFORE,
        "versions": {"torch": torch.__version__},
        "systems": {"before": counted_before()} | figures,
    }
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    from readme import write_sections

    write_sections()


def counted_before() -> dict:
    """The figures of the loop at the commit `BEFORE`, in a process that imports lite as it was there."""
    archive = subprocess.run(["git", "archive", BEFORE, "lite"], cwd=ROOT, check=True, capture_output=True).stdout
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(fileobj=io.BytesIO(archive)) as files:
            files.extractall(folder, filter="data")
        command = [sys.executable, __file__, "--before"]
        paths = {"PYTHONPATH": os.pathsep.join([folder, str(ROOT / "benchmarks")])}
        done = subprocess.run(command, env=os.environ | paths, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def per_position(run, adapters: int) -> dict:
    """Operations and waits per position of `run`, with so many adapters on a 4-bit base."""
    of_depth = {}
    for layers in (2, 4):
        model = narrow(layers, adapters)
        counts = []
        for positions in (FEW, MANY):
            with Count() as count, torch.no_grad():
                run(model, positions, count)
            counts.append(count.operations)
        of_depth[layers] = {name: (counts[1][name] - counts[0][name]) / (MANY - FEW) for name in counts[1]}
    names = of_depth[4]
    whole = {name: names[name] + (LAYERS - 4) / 2 * (names[name] - of_depth[2].get(name, 0)) for name in names}
    return {
        "operations": round(sum(whole.values())),
        "launches": round(sum(number for name, number in whole.items() if name not in VIEWS)),
        "waits": round(sum(number * WAITS.get(name, 0) for name, number in whole.items()), 2),
    }


def narrow(layers: int, adapters: int):
    """A Qwen3-VL of so many narrow layers in NF4, with adapters in float32 as a trainer has them."""
    rope = {"rope_type": "default", "rope_theta": 5_000_000, "mrope_interleaved": True, "mrope_section": [6, 5, 5]}
    text = {
        "hidden_size": 128, "intermediate_size": 128, "num_hidden_layers": layers, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 32, "vocab_size": 2048, "rope_parameters": rope,
    }  # fmt: skip
    vision = {"depth": 1, "hidden_size": 64, "intermediate_size": 128, "num_heads": 4, "out_hidden_size": 128}
    config = Qwen3VLConfig(text_config=text, vision_config=vision | {"deepstack_visual_indexes": [0]})
    torch.manual_seed(0)
    model = Qwen3VLForConditionalGeneration._from_config(config, dtype=torch.bfloat16)
    quantised = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16, llm_int8_skip_modules=[kept_in_16bit(model)],
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        model = Qwen3VLForConditionalGeneration.from_pretrained(
            folder, dtype=torch.bfloat16, quantization_config=quantised
        )
    for module in model.modules():
        if isinstance(module, bnb.nn.Linear4bit):
            module.support_avx512bf16_for_cpu = False  # see lite.models.loading
    names = [STAGE1, STAGE2][:adapters]
    for name in names:
        model = add_adapter(model, lora_config(ModelConfig(), model), name)
    if names:
        activate(model, names, trainable=names[-1])
        for name, weight in model.named_parameters():
            if "lora_" in name:
                weight.data = weight.data.float()
    return model.eval()


def settings(positions: int) -> GenerationConfig:
    return GenerationConfig(
        max_new_tokens=positions, min_new_tokens=positions, do_sample=True, temperature=1.0, top_p=1.0, pad_token_id=0,
        eos_token_id=2, suppress_tokens=[5, 6, 7, 8],
    )  # fmt: skip


def prompts(repeat: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.randint(300, 2000, (PROMPTS, PROMPT_TOKENS)).repeat_interleave(repeat, 0)
    return ids, torch.ones_like(ids)


def transformers_loop(model, positions: int, _: Count) -> torch.Tensor:
    ids, mask = prompts(GROUP)
    return model.generate(input_ids=ids, attention_mask=mask, generation_config=settings(positions))


def lite_loop(model, positions: int, _: Count) -> torch.Tensor:
    shared_prompt.prepare(model)
    return shared_prompt.generate(model, *prompts(), None, GROUP, settings(positions))


def sampling_loop(model, positions: int, count: Count) -> torch.Tensor:
    from lite.models.merged import sampling

    with sampling(model):
        return lite_loop(model, positions, count)


def graph_loop(model, positions: int, count: Count) -> torch.Tensor:
    from lite.models import shared_decoding

    shared_decoding.CAPTURING["cpu"] = count.paused
    try:
        return sampling_loop(model, positions, count)
    finally:
        del shared_decoding.CAPTURING["cpu"]


if __name__ == "__main__":
    main()
