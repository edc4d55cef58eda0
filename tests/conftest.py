"""Models and files that several tests need. Everything is made here; nothing is downloaded."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["OMP_NUM_THREADS"] = "1"

import pytest
import torch
from transformers import AutoConfig, AutoModelForImageTextToText

from lite.models import TINY, ModelConfig, load_model

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
