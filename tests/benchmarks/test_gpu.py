"""The GPU benchmark on a CPU: that every line of it runs, what it accounts, and that its table invents nothing."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import gpu
import gpu_cell
import gpu_table
import pytest
import random_qwen
import torch
from phases import CudaMemory, Phases, TensorMemory

from lite.config.model import ModelConfig
from lite.models import loading as models
from lite.models.loading import load_model
from lite.models.shapes import shape_of, shape_of_config
from lite.train.trainer import StageTrainer

ROOT = Path(__file__).parents[2]
# What the benchmark must do without: the package's requirements but for torch, transformers, trl, peft, bitsandbytes,
# accelerate, datasets and what these need themselves.
BLOCKED = (
    "bm25s chardet lancedb loky lxml markdown_it matplotlib openpyxl pypdfium2 rapidfuzz rich sklearn "
    "scipy sentence_transformers sentencex tensorboard word2number unsloth"
).split()
SETTINGS = gpu.TINY | {"max_documents": 2}


def cell(system: str, stage: int, **changes: object) -> gpu_cell.Cell:
    arguments = Namespace(
        profile="qwen3-vl-4b", stage=stage, system=system, settings=SETTINGS | changes, steps=1, cap_gib=24.0,
        device="cpu", tiny=True, real=False, out=None,
    )  # fmt: skip
    return gpu_cell.Cell(arguments)


@pytest.mark.parametrize("size", ["2B", "4B", "8B"])
def test_configuration_is_the_published_one(size: str) -> None:
    shape = shape_of(f"Qwen/Qwen3-VL-{size}-Instruct")
    config = random_qwen.config_of(f"Qwen/Qwen3-VL-{size}-Instruct")
    assert shape_of_config(config) == shape
    assert config.text_config.rope_parameters["mrope_section"] == [24, 20, 20]
    assert sum(config.text_config.rope_parameters["mrope_section"]) == config.text_config.head_dim // 2


def test_random_model_is_what_the_loader_makes_of_a_checkpoint(tmp_path: Path) -> None:
    ours = random_qwen.random_model(random_qwen.config_of("tiny"), "cpu")
    random_qwen.random_model(random_qwen.config_of("tiny"), "cpu", load_in_4bit=False).save_pretrained(tmp_path)
    random_qwen.random_processor(4096).save_pretrained(tmp_path)
    loaded, _ = load_model(ModelConfig(model_name_or_path=str(tmp_path)))

    def modules(model: torch.nn.Module) -> dict[str, str]:
        return {name: type(module).__name__ for name, module in model.named_modules()}

    def buffers(model: torch.nn.Module) -> dict[str, tuple]:
        return {name: (buffer.dtype, buffer.sum().item()) for name, buffer in model.named_buffers()}

    assert modules(ours) == modules(loaded)
    assert buffers(ours) == buffers(loaded)
    assert {name: weight.shape for name, weight in ours.named_parameters()} == {
        name: weight.shape for name, weight in loaded.named_parameters()
    }
    for weight in ours.parameters():
        assert weight.float().std() > 0 or weight.ndim == 1  # no matrix of zeros
    assert ours.lm_head.weight.data_ptr() == ours.model.language_model.embed_tokens.weight.data_ptr()


@pytest.mark.parametrize(("tokens", "images"), [(40, 0), (96, 2), (131, 3)])
def test_prompts_are_exactly_as_long_as_asked_and_no_image_is_empty(tokens: int, images: int) -> None:
    processor = random_qwen.random_processor(4096)
    row = random_qwen.random_row(processor, tokens, images, 4096, seed=1)
    text = processor.apply_chat_template(row["prompt"], add_generation_prompt=True, tokenize=False)
    inputs = processor(text=[text], images=row["images"] or None, return_tensors="pt")
    assert inputs["input_ids"].shape == (1, tokens)
    assert len(row["images"]) == images
    if images:
        assert inputs["image_grid_thw"].prod(1).tolist() == [16] * images  # 64x64 pixels
        assert inputs["pixel_values"].std() > 0.5
    assert row != random_qwen.random_row(processor, tokens, images, 4096, seed=2)


def test_prompt_that_cannot_be_that_short_is_an_error() -> None:
    with pytest.raises(ValueError, match="3 images of 4096 pixels take"):
        random_qwen.random_row(random_qwen.random_processor(4096), 12, 3, 4096, seed=0)


def test_peaks_belong_to_the_phase_that_reached_them() -> None:
    class Trace:
        """An allocator whose counters follow a script."""

        def __init__(self):
            self.now = self.most = 0

        def use(self, *amounts: int) -> None:
            for amount in amounts:
                self.now = amount
                self.most = max(self.most, amount)

        def reset(self) -> None:
            self.most = self.now

        def peak(self) -> int:
            return self.most

    trace = Trace()
    phases = Phases(trace)
    with phases.phase("step"):
        trace.use(10)
        with phases.phase("generate"):
            trace.use(50, 20)
        trace.use(25)
        with phases.phase("backward"):
            trace.use(40, 15)
    assert phases.peaks == {"step": 25, "generate": 50, "backward": 40}
    assert set(phases.seconds) == {"step", "generate", "backward"}
    with pytest.raises(ZeroDivisionError), phases.phase("step"), phases.phase("generate"):
        trace.use(1 // 0)
    assert phases.failed == "generate"


def test_reserved_memory_outlives_the_resets_of_phases(monkeypatch: pytest.MonkeyPatch) -> None:
    reserved = iter([7, 9, 4])
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda: next(reserved))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 3)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: None)
    memory = CudaMemory()
    for _ in range(3):
        memory.reset()
        assert memory.peak() == 3
    assert memory.reserved == 9


def test_tensor_memory_counts_storages_until_they_are_freed() -> None:
    with TensorMemory() as memory:
        first = torch.zeros(1000)
        view = first[10:]
        assert memory.now == 4000
        second = first + 1
        assert memory.peak() == 8000
        del first, second
        assert memory.now == 4000  # the view holds the first
        del view
        memory.reset()
        assert (memory.now, memory.peak()) == (0, 0)


@pytest.mark.parametrize("stage", [1, 2])
def test_lite_cell_measures_every_phase(stage: int) -> None:
    result = cell("lite", stage).run()
    assert result["status"] == "measured", result
    assert {"generate", "log-probs", "backward", "optimiser", "step"} <= set(result["seconds"])
    assert {"load", "generate", "log-probs", "backward", "optimiser"} <= set(result["peak_gib"])
    assert all(value > 0 for value in result["peak_gib"].values())
    assert result["peak_gib"]["all"] > result["peak_gib"]["load"]
    assert result["generated_tokens_per_second"] > 0
    assert result["operations_per_position"] > 100
    assert result["settings"]["weights"] == "random"


def test_stock_trl_and_scoring_are_measured() -> None:
    trl, score = cell("trl", 2).run(), cell("score", 1).run()
    assert trl["status"] == score["status"] == "measured", (trl, score)
    assert trl["seconds"]["step"] > 0
    assert score["pairs_per_second"] > 0


@pytest.mark.slow
@pytest.mark.parametrize(("prompt", "completion"), [(900, 12), (200, 64)], ids=["one layer", "logits"])
def test_estimate_agrees_with_a_traced_step(prompt: int, completion: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every tensor of a real step is counted; only TRL's fused log-softmax, a GPU kernel, is put in as it allocates."""

    class Fused(torch.autograd.Function):
        @staticmethod
        def forward(context, logits, tokens):
            context.save_for_backward(logits, tokens)
            rows = zip(logits.flatten(0, -2), tokens.flatten(), strict=True)  # no copy of the logits
            return torch.stack([row[token] - row.logsumexp(0) for row, token in rows]).view(tokens.shape)

        @staticmethod
        def backward(context, gradient):
            logits, tokens = context.saved_tensors
            result = torch.empty_like(logits)
            for out, row, token, share in zip(
                result.flatten(0, -2), logits.flatten(0, -2), tokens.flatten(), gradient.flatten(), strict=True
            ):
                out.copy_(row.softmax(0)).mul_(-share)[token] += share
            return result, None

    def log_softmax(self, logits, tokens, entropy):
        logps = Fused.apply(logits, tokens)
        return logps, torch.zeros_like(logps) if entropy else None

    config = random_qwen.config_of("tiny")
    text = config.text_config
    text.hidden_size, text.intermediate_size, text.num_hidden_layers, text.num_attention_heads = 256, 768, 4, 8
    text.vocab_size, config.vision_config.out_hidden_size = 8192, 256
    monkeypatch.setattr(StageTrainer, "_log_softmax", log_softmax)
    monkeypatch.setattr(random_qwen, "TINY_CONFIG", config)
    changes = {"num_generations": 8, "per_device_train_batch_size": 8, "max_prompt_tokens": prompt}
    measuring = cell("lite", 2, max_completion_length=completion, **changes)
    measuring.arguments.steps = 0
    result = measuring.run()
    assert result["status"] == "measured", result
    assert abs(result["estimate_error"]) < 0.12, (result["estimate"], result["peak_gib"])


def test_cells_on_unsloth_go_as_far_as_its_loader(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = []

    def load_with_unsloth(folder, model_config):
        model, processor = load_model(dataclasses.replace(model_config, model_name_or_path=folder))
        loaded.append(folder)
        return model, processor

    monkeypatch.setattr(models, "load_with_unsloth", load_with_unsloth)
    result = cell("lite on unsloth", 2).run()
    assert result["status"] == "measured", result
    assert len(loaded) == 1
    assert "checkpoint" not in result["peak_gib"]  # the 16-bit model that was written does not count
    # its own trainer cannot be had here
    result = cell("unsloth", 1).run()
    assert (result["status"], "unsloth" in result["reason"]) == ("failed", True)


def test_memory_that_runs_out_is_a_result_with_its_phase(monkeypatch: pytest.MonkeyPatch) -> None:
    from lite.models import shared_prompt

    def full(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(shared_prompt, "generate", full)
    result = cell("lite", 2).run()
    assert (result["status"], result["phase"]) == ("out of memory", "generate")
    assert result["peak_gib"]["load"] > 0
    assert gpu_table.failure(result) == "out of memory at generate"


def test_other_errors_are_results_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random_qwen, "random_model", lambda *_: 1 / 0)
    result = cell("lite", 1).run()
    assert (result["status"], result["phase"]) == ("failed", "load")
    assert "ZeroDivisionError" in result["reason"]


@pytest.mark.slow
def test_runs_where_nothing_else_is_installed(tmp_path: Path) -> None:
    out = tmp_path / "cell.json"
    command = ["--profile", "qwen3-vl-4b", "--stage", "2", "--system", "lite", "--steps", "1", "--device", "cpu"]
    command += ["--tiny", "--settings", json.dumps(SETTINGS), "--out", str(out)]
    program = (
        f"import sys; sys.modules |= dict.fromkeys({BLOCKED}); sys.path.insert(0, {str(ROOT / 'benchmarks')!r}); "
        f"sys.argv[1:] = {command!r}; import gpu, gpu_cell; gpu_cell.main(); "
        # asked for by name, because datasets tries to import it where it stands in sys.modules
        "assert 'spacy' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=tmp_path, timeout=600)
    assert json.loads(out.read_text())["status"] == "measured"


@pytest.mark.slow
def test_whole_program_on_a_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    only = ["qwen3-vl-2b:1:lite*", "qwen3-vl-2b:1:unsloth", "qwen3-vl-2b:2:largest"]
    options = ["--device", "cpu", "--tiny", "--steps", "1", "--results", str(tmp_path)]
    page = (ROOT / "docs" / "gpu.md").read_text()
    monkeypatch.setattr(gpu, "ATTEMPTS", 2)
    monkeypatch.setattr(sys, "argv", ["gpu.py", *options, "--only", *only])
    gpu.main()
    (path,) = tmp_path.glob("gpu-*.json")
    result = json.loads(path.read_text())
    assert result["cells"]["qwen3-vl-2b:1:lite"]["status"] == "measured"
    assert result["cells"]["qwen3-vl-2b:1:unsloth"] == {"status": "skipped", "reason": "unsloth is not installed"}
    (found,) = result["cells"]["qwen3-vl-2b:2:largest"]["largest"]
    assert found["documents"] >= 2
    assert all(attempt["status"] == "measured" for attempt in found["attempts"])
    # a second call adds to the file, and goes on only under the same conditions
    monkeypatch.setattr(sys, "argv", ["gpu.py", *options, "--only", "qwen3-vl-8b:1:unsloth"])
    gpu.main()
    assert len(json.loads(path.read_text())["cells"]) == 5
    monkeypatch.setattr(gpu, "installed", lambda: {"torch": "0.0"})
    with pytest.raises(SystemExit, match="measured with other versions"):
        gpu.main()
    assert gpu_table.read_results(tmp_path) == []
    assert (ROOT / "docs" / "gpu.md").read_text() == page


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_cuda_it_says_so_and_ends_well(monkeypatch: pytest.MonkeyPatch, capsys, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--results", str(tmp_path)])
    gpu.main()
    assert capsys.readouterr().out == "skipped: no CUDA device here; nothing was measured.\n"
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------------------------------------------------ bisection


@pytest.mark.parametrize("limit", [1, 5, 6, 9, 14])
def test_largest_is_bracketed(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def fake(profile, stage, system, changes, steps, arguments, deadline):
        fits = changes["max_documents"] <= limit
        assert changes["max_prompt_tokens"] == 200 + changes["max_documents"] * (256 + 60)
        assert changes["per_device_train_batch_size"] * changes["gradient_accumulation_steps"] == 32
        return {"status": "measured" if fits else "out of memory"}

    monkeypatch.setattr(gpu, "run_cell", fake)
    monkeypatch.setattr(gpu, "guess", lambda *_: 8)
    found = gpu.largest("qwen3-vl-4b", 512 * 512, 8, {}, Namespace(), 0.0)
    assert found["documents"] <= limit
    if found["next_does_not_fit"]:
        assert found["documents"] == limit
    assert len(found["attempts"]) <= gpu.ATTEMPTS


def test_guess_is_the_last_that_fits_by_the_estimate() -> None:
    settings = gpu_cell.recipe("qwen3-vl-4b", 2, {})
    few = gpu.guess(settings, 1024 * 1024, 8, Namespace(tiny=False, cap_gib=16.0))
    more = gpu.guess(settings, 512 * 512, 8, Namespace(tiny=False, cap_gib=16.0))
    most = gpu.guess(settings, 512 * 512, 8, Namespace(tiny=False, cap_gib=24.0))
    assert 1 <= few < more < most


# ---------------------------------------------------------------------------------------------------------------- table


def measured(seconds: float, peak: float, **more: object) -> dict:
    phases = dict.fromkeys(gpu_table.PHASES, 1.0)
    return {
        "status": "measured",
        "seconds": {name: value for name, value in phases.items() if name != "load"} | {"step": seconds},
        "peak_gib": phases | {"all": peak},
        "generated_tokens_per_second": 1234.5,
        "estimate_error": -0.04,
    } | more


HEAD = {
    "card": "NVIDIA GeForce RTX 4090", "card_gib": 23.6, "cap_gib": 24.0, "driver": "570.1", "date": "2027-01-02",
    "tiny": False, "weights": "random", "versions": {"torch": "2.14.1", "unsloth": None},
}  # fmt: skip


def test_table_without_results_is_one_sentence() -> None:
    assert gpu_table.markdown([]).startswith("No card has been measured yet")


def test_scores_alone_are_told_without_a_table() -> None:
    text = gpu_table.markdown(
        [HEAD | {"cells": {"qwen3-vl-4b:1:score": {"status": "measured", "pairs_per_second": 9.0}}}]
    )
    assert "pairs/s: `qwen3-vl-4b` 9.0." in text
    assert "RTX 4090" in text
    assert "|" not in text
    assert "No card" not in text


def test_table_holds_what_the_file_holds() -> None:
    cells = {
        "qwen3-vl-4b:2:lite": measured(50.0, 16.0, operations_per_position=1234),
        "qwen3-vl-4b:2:trl": measured(200.0, 20.0),
        "qwen3-vl-4b:2:unsloth": {"status": "failed", "phase": "generate", "reason": "ValueError: a|b\nmore"},
        "qwen3-vl-8b:2:lite": {"status": "out of memory", "phase": "backward"},
        "qwen3-vl-4b:1:score": {"status": "measured", "pairs_per_second": 33.33},
        "qwen3-vl-4b:2:largest": {
            "status": "measured",
            "largest": [{"pixels": 262144, "generations": 8, "documents": 14, "next_does_not_fit": True}],
        },
    }
    text = gpu_table.markdown([HEAD | {"cells": cells}])
    row = next(line for line in text.splitlines() if line.startswith("| `qwen3-vl-4b`, 2"))
    assert row.split(" | ")[1:] == [
        "**16.0**: 1.0 / 1.0 / 1.0 / 1.0 / 1.0", "-4%", "**50.0**: 1.0 / 1.0 / 1.0 / 1.0", "1,234", "4.00×, 1.25×",
        "not measured (failed: ValueError: a/b) |",
    ]  # fmt: skip
    assert "| `qwen3-vl-8b`, 2 | out of memory at backward |" in text
    assert "pairs/s: `qwen3-vl-4b` 33.3." in text
    assert "`qwen3-vl-4b` 14 of 512×512 with 8 generations." in text
    assert "Not measured yet: `qwen3-vl-2b`, 1; `qwen3-vl-2b`, 2; `qwen3-vl-4b`, 1; `qwen3-vl-8b`, 1." in text
    assert "generated position of stage 2: `qwen3-vl-4b` 1,234." in text
    assert "on Unsloth" not in text
    assert "RTX 4090 (23.6 GiB, capped at 24 GiB), driver 570.1, 2027-01-02; random weights" in text
    assert "torch 2.14.1." in text


def test_trials_on_a_cpu_are_not_tabled(tmp_path: Path) -> None:
    for name, changes in (("cpu", {"card": "CPU"}), ("tiny", {"tiny": True}), ("card", {})):
        (tmp_path / f"gpu-{name}.json").write_text(json.dumps(HEAD | {"cells": {}} | changes))
    assert [result["card"] for result in gpu_table.read_results(tmp_path)] == ["NVIDIA GeForce RTX 4090"]
