"""Whether a model fits into memory is known from its configuration."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lite.models import fits
from lite.models.fits import WORKING, fit, free_ram, needed
from lite.runs import TINY
from lite.schema import LiteError

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="the figures are those of a CPU")


def test_what_is_needed_is_what_the_weights_take() -> None:
    published, packed, in_4bit = needed(TINY, "tiny")
    from safetensors import safe_open

    with safe_open(TINY / "model.safetensors", "pt") as weights:
        count = sum(weights.get_tensor(name).numel() for name in weights.keys())  # noqa: SIM118
    assert published - WORKING == 4 * count
    assert 0.13 * 4 * count < packed - WORKING < 4 * count
    assert not in_4bit


@pytest.mark.parametrize(("share", "in_4bit"), [(1.0, False), (0.999999, True)])
def test_weights_stay_as_published_where_there_is_room(monkeypatch: pytest.MonkeyPatch, share, in_4bit) -> None:
    published, _, _ = needed(TINY, "tiny")
    monkeypatch.setattr(fits, "free_memory", lambda: published * share)
    assert fit(TINY, "tiny") == in_4bit


def test_too_little_memory_says_how_much_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fits, "free_memory", lambda: 2**29)
    with pytest.raises(LiteError, match=r"big/model needs about 0\.8 GiB of memory, and 0\.5 GiB .* free.*laptop"):
        fit(TINY, "big/model")


def test_a_container_has_its_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "max").write_text("1000000\n")
    (tmp_path / "current").write_text("400000\n")
    monkeypatch.setattr(fits, "CGROUPS", ((str(tmp_path / "max"), str(tmp_path / "current")),))
    assert free_ram() == 600000
    (tmp_path / "max").write_text("max\n")
    assert free_ram() > 600000


def test_a_kind_that_is_unknown_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "never_heard_of", "vision_config": {}}')
    with pytest.raises(LiteError, match="transformers cannot read the configuration of a/b"):
        fit(tmp_path, "a/b")
