"""What vLLM is asked, and what is made of its answers.

The engine object alone is a stand-in: it runs the embedded model with the very adapters that vLLM would be given, so
that the traces can be compared with ours.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from peft import PeftModel
from rich.console import Console

from lite.cli import main as cli
from lite.config.model import ModelConfig
from lite.data.sources import load_examples
from lite.evaluate.engine import transformers_engine
from lite.evaluate.vllm import answer_with, engine_arguments, exported_cards, vllm_engine
from lite.models.loading import load_model
from lite.runs import SHIPPED
from lite.schema import LiteError
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
    answer = answer_with(engine, SimpleNamespace, ("stage1", "joined"), engine.processor, cards, 8)
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


def test_the_exported_adapter_has_to_be_named(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    arguments = ["evaluate", "--config", RECIPE, "--engine", "vllm", "--output_dir", str(tmp_path), "--limit", "1"]
    assert cli.main(arguments) == 1
    assert "give --exported FOLDER" in capsys.readouterr().err
