"""Run folders that somebody else, or a bad day, has left: one sentence, and no traceback."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from lite.models.adapters import adapter_hash
from lite.rag import Rag
from lite.runs import SHIPPED, STAGE1, STAGE2, find_adapters, read_card, read_metrics, stage1_of, tuned_card, write_card
from lite.schema import LiteError


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """A run folder with both stages, as `lite train` leaves it."""
    for stage in (STAGE1, STAGE2):
        shutil.copytree(SHIPPED / stage, tmp_path / stage / "adapter")
    return tmp_path / STAGE2


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"null", b"[]", b'"x"', b"{}", b"\xff", b"[" * 200_000, b'{"stage": "stage1"}', b'{"active": []}'],
)
@pytest.mark.parametrize("stage", [STAGE1, STAGE2])
def test_a_broken_card_is_named(copied: Path, stage: str, content: bytes) -> None:
    (copied.parent / stage / "adapter" / "lite.json").write_bytes(content)
    with pytest.raises(LiteError, match=f"{stage}/adapter/lite.json|neither a run folder"):
        Rag.load(copied)


@pytest.mark.parametrize(
    ("stage", "field", "value"),
    [
        (STAGE1, "threshold", "0.5"), (STAGE1, "threshold", float("nan")), (STAGE1, "threshold", -1),
        (STAGE1, "max_kept", 0), (STAGE1, "max_kept", True), (STAGE1, "max_kept", 2.5), (STAGE1, "hash", 7),
        (STAGE1, "document_chars", None), (STAGE2, "max_documents", 10**30), (STAGE2, "max_completion_length", "long"),
        (STAGE2, "base", ["tiny"]), (STAGE2, "max_pixels", -4), (STAGE2, "stage1_hash", {}),
        (STAGE2, "active", ["stage2", "stage1"]), (STAGE2, "active", "stage1"), (STAGE2, "base_fingerprint", None),
    ],
)  # fmt: skip
def test_a_field_that_cannot_be_is_named(copied: Path, stage: str, field: str, value: object) -> None:
    folder = copied.parent / stage / "adapter"
    write_card(folder, json.loads((folder / "lite.json").read_text()) | {field: value})
    with pytest.raises(LiteError, match=rf"lite.json: '{field}' is .*anew"):
        Rag.load(copied)


@pytest.mark.parametrize("field", ["base", "base_fingerprint", "hash", "document_chars", "max_pixels", "max_documents"])
def test_a_field_that_is_missing_is_named(copied: Path, field: str) -> None:
    card = json.loads((copied / "adapter" / "lite.json").read_text())
    write_card(copied / "adapter", {name: value for name, value in card.items() if name != field})
    with pytest.raises(LiteError, match=rf"lite.json: '{field}' is missing"):
        find_adapters(copied)


def test_cards_of_earlier_versions_may_hold_more(copied: Path) -> None:
    card = read_card(copied / "adapter")
    write_card(copied / "adapter", card | {"note": "by hand"})
    assert read_card(copied / "adapter") == card | {"note": "by hand"}
    assert tuned_card(SHIPPED / STAGE1)["max_kept"] == 15


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "adapter_config.json"])
@pytest.mark.parametrize("content", [None, b"", b"{}", b"[" * 200_000, "half", b"\xff" * 100])
def test_weights_that_are_missing_or_cut_are_named(copied: Path, name: str, content: bytes | str | None) -> None:
    path = copied / "adapter" / name
    whole = path.read_bytes()
    path.unlink() if content is None else path.write_bytes(whole[: len(whole) // 2] if content == "half" else content)
    with pytest.raises(LiteError, match=rf"{path}"):
        Rag.load(copied)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("peft_type", "LOHA"), ("peft_type", "PROMPT_TUNING"), ("peft_type", "none"), ("peft_type", 3), ("r", "16"),
        ("r", 0), ("r", 10**12), ("lora_alpha", None), ("lora_alpha", float("nan")), ("target_modules", 7),
        ("auto_mapping", {"base_model_class": "x", "parent_library": "antigravity"}), ("megatron_core", "antigravity"),
        ("use_dora", True), ("rank_pattern", {"q_proj": 3}), ("modules_to_save", ["lm_head"]), ("bias", "all"),
        ("layers_to_transform", [0]), ("r", 8), ("target_modules", "nothing like it"), ("target_modules", "("),
        ("target_modules", []),
    ],
)  # fmt: skip
def test_other_adapters_are_refused(copied: Path, field: str, value: object) -> None:
    path = copied / "adapter" / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {field: value}))
    with pytest.raises(LiteError, match=f"{copied / 'adapter'}"):
        Rag.load(copied)


def test_the_settings_beside_an_adapter_cannot_run_anything(copied: Path, tmp_path: Path) -> None:
    settings = copied / "config.yaml"
    for text in (f"stage1_adapter: !!python/object/apply:os.system ['touch {tmp_path / 'owned'}']", "[a]", "a: [", ""):
        settings.write_text(text)
        with pytest.raises(LiteError, match=f"{settings}"):
            stage1_of(copied / "adapter")
    assert not (tmp_path / "owned").exists()
    settings.write_text("stage1_adapter: [3]")
    assert stage1_of(copied / "adapter") == copied.parent / STAGE1 / "adapter"


def test_metrics_that_were_cut_are_read_to_there(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_bytes(b'{"step": 1}\n\xff\xfe\n' + b"[" * 200_000 + b'\n{"step": 2}\n{"st')
    assert read_metrics(tmp_path / "metrics.jsonl") == [{"step": 1}, {"step": 2}]


def test_a_card_is_that_of_its_weights(copied: Path) -> None:
    assert adapter_hash(copied / "adapter") == read_card(copied / "adapter")["hash"]
