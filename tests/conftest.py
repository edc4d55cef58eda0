"""Models and files that several tests need. Everything is made here; nothing is downloaded."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["XDG_STATE_HOME"] = tempfile.mkdtemp(prefix="lite-tests-")  # where lite notes the library used last

import pytest
import torch
from transformers import AutoConfig, AutoModelForImageTextToText

from lite.config.model import ModelConfig
from lite.models.adapters import add_adapter, base_fingerprint, save_adapter
from lite.models.loading import load_model, lora_config
from lite.runs import STAGE1, STAGE2, TINY, read_card

if TYPE_CHECKING:
    from lite.rag import Rag

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def random_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Qwen3-VL with random weights, of the embedded model's shape and with its processor."""
    folder = tmp_path_factory.mktemp("random")
    shutil.copytree(TINY, folder, dirs_exist_ok=True)
    torch.manual_seed(0)
    AutoModelForImageTextToText.from_config(AutoConfig.from_pretrained(TINY)).save_pretrained(folder)
    return folder


@pytest.fixture
def random_model(random_folder: Path):
    """(model, processor) of `random_folder`, in NF4."""
    return load_model(ModelConfig(model_name_or_path=str(random_folder)))


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder of both stages on the embedded model, with adapters that do something arbitrary."""
    parent = tmp_path_factory.mktemp("runs") / "arbitrary"
    model, _ = load_model(ModelConfig())
    card = {"base": "tiny", "base_fingerprint": base_fingerprint(model), "document_chars": 140, "max_pixels": None}
    for stage, scale in ((STAGE1, 0.01), (STAGE2, 0.05)):  # the latter makes it say something
        model = add_adapter(model, lora_config(ModelConfig(), model), stage)
        generator = torch.Generator().manual_seed(0)
        for name, parameter in model.named_parameters():
            if "lora_B" in name and f".{stage}." in name:
                parameter.data = torch.randn(parameter.shape, generator=generator) * scale
    save_adapter(model, STAGE1, parent / STAGE1 / "adapter", card | {"stage": STAGE1, "threshold": 0.0, "max_kept": 8})
    own = {
        "stage": STAGE2, "active": [STAGE1, STAGE2], "max_documents": 5, "max_completion_length": 24,
        "stage1_hash": read_card(parent / STAGE1 / "adapter")["hash"],
    }  # fmt: skip
    save_adapter(model, STAGE2, parent / STAGE2 / "adapter", card | own)
    return parent / STAGE2


@pytest.fixture(scope="session")
def loaded(run: Path) -> Rag:
    from lite.rag import Rag  # late: the tests marked gpu also run where its packages are not installed

    return Rag.load(run, batch_size=4)


@pytest.fixture
def rag(loaded: Rag) -> Rag:
    """With cards that a test may change."""
    from lite.rag import Rag

    return Rag(loaded.model, loaded.processor, dict(loaded.stage1), dict(loaded.stage2), loaded.batch_size)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--screenshots", metavar="DIR", help="Where test_demo_browser.py leaves its pictures of the page.")


# The packages of these two are imported where they are used: GPU tests run on machines without them.


@pytest.fixture(scope="session")
def static_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A text embedding that is made here: a vector of its own for each token of the embedded model's tokenizer."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import StaticEmbedding
    from tokenizers import Tokenizer

    folder = tmp_path_factory.mktemp("static")
    torch.manual_seed(0)  # or which documents are alike would be another matter in every run
    tokenizer = Tokenizer.from_file(str(TINY / "tokenizer.json"))
    SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_dim=64)], device="cpu").save(str(folder))
    return str(folder)


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A library's address in an S3-compatible store on this machine, with the environment that leads LanceDB to it."""
    import boto3
    import requests
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    address = "http://{}:{}".format(*server.get_host_and_port())
    # What an earlier server held outlives it in this process.
    requests.post(f"{address}/moto-api/reset", timeout=60).raise_for_status()
    settings = {"ENDPOINT": address, "ALLOW_HTTP": "true", "ACCESS_KEY_ID": "x", "SECRET_ACCESS_KEY": "x"}
    for name, value in {**settings, "REGION": "us-east-1"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    boto3.client("s3", endpoint_url=address, region_name="us-east-1").create_bucket(Bucket="papers")
    yield "s3://papers/library"
    server.stop()
