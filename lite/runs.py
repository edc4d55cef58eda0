"""Where a run keeps what: its adapters and their cards, its settings and metrics; and which profile fits a GPU.

runs/<profile>/<stage>/adapter/lite.json
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path

from lite.files import read_json, read_yaml, write_text
from lite.schema import LiteError
from lite.terminal import printable

logger = logging.getLogger(__name__)

TINY = Path(__file__).parent / "tiny" / "weights"
SHIPPED = TINY.parent / "adapters"  # trained on the embedded model: what works before any training
TINY_NOTE = "The embedded tiny model knows only flags: of other documents its scores and answers say nothing."
UNTRAINED_NOTE = (
    "{model} is untrained: its filter and the search rank the documents together and keep the best {budget}, whatever "
    "their scores, and how well it judges and answers was not measured."
)
CARD = "lite.json"
STAGE1, STAGE2 = "stage1", "stage2"
LAPTOP = "laptop"
# Names for models of the hub. Of two small ones under Apache-2.0 the faster one: on one core, with random weights of
# their true shape, SmolVLM2-500M takes 0.36 s a token and 9 ms a token of a prompt, Qwen3.5-0.8B 0.73 s and 20 ms.
MODELS = {LAPTOP: "HuggingFaceTB/SmolVLM2-500M-Video-Instruct"}
# How a model without adapters is asked; a card says it of a trained one.
UNTRAINED = {"document_chars": 1200, "max_documents": 5, "max_completion_length": 512, "quotes": True}
NO_MODEL = "No model has read these; name one with --model."
PROFILES = {22000: "qwen3-vl-4b", 7600: "qwen3-vl-2b"}  # by MiB of the GPU, largest first; recipes/profile.sh asks


def find_adapters(
    profile_or_run: str | Path,
    stage1: str | Path | None = None,
    stage2: str | Path | None = None,
    shipped: bool = False,
) -> tuple[Path, Path]:
    """The folders of a stage 2 adapter and of the stage 1 adapter that it is stacked on, as (stage 1, stage 2).

    Args:
        profile_or_run: A run folder of stage 2, a folder that holds both stages, or a profile: its runs in `runs/`, for
            `tiny` else the adapters that come with the package.
        stage1, stage2: Adapter folders that are named; they are taken in place of what is found.
        shipped: Whether the shipped adapters stand in for any missing run.

    Raises:
        LiteError: There are none, or they are not made to filter and answer together.
    """
    found = _stage2_adapter([Path(stage2)] if stage2 is not None else _places(profile_or_run, shipped))
    if found is None:
        raise LiteError(
            f"There is no stage 2 adapter in {stage2}. Give the `adapter` folder of a stage 2 run."
            if stage2 is not None
            else _not_trained(profile_or_run)
        )
    if read_card(found)["stage1_hash"] is None:
        raise LiteError(
            f"{found} was trained without stage 1 (adapter_mode: fresh), which asking and evaluating need; its run's "
            "report.md holds what it reaches alone."
        )
    # A recipe names a stage 1 that need not be there yet; what is shipped belongs together.
    below = stage1_of(found) if stage1 is None or found == SHIPPED / STAGE2 else Path(stage1)
    if not (below / CARD).exists():
        raise LiteError(f"{found} is stacked on a stage 1 adapter, and {below} does not exist. Copy it there.")
    return below, found


def is_trained(profile_or_run: str | Path) -> bool:
    """Whether `find_adapters` finds a stage 2 adapter."""
    return _stage2_adapter(_places(profile_or_run)) is not None


def _places(profile_or_run: str | Path, shipped: bool = False) -> list[Path]:
    """Where a stage 2 adapter can be."""
    given, run = Path(profile_or_run), Path("runs") / profile_or_run
    places = [given / "adapter", given / STAGE2 / "adapter", run / STAGE2 / "adapter", given / STAGE2]
    return places + [SHIPPED / STAGE2] * (shipped or str(profile_or_run) == "tiny")


def _stage2_adapter(places: list[Path]) -> Path | None:
    return next((place for place in places if (place / CARD).exists() and "active" in read_card(place)), None)


def _not_trained(profile_or_run: str | Path) -> str:
    given, adapter = Path(profile_or_run), Path("runs") / profile_or_run / STAGE2 / "adapter"
    profiles = {path.parent.name for path in Path("recipes").glob("*/stage2.yaml")} | {*PROFILES.values()}
    train = f"train it (PROFILE={given} bash recipes/stage2.sh), or " if str(given) in profiles else ""
    return (
        f"{profile_or_run} is neither a run folder with a stage 2 adapter, nor a profile that was trained "
        f"({adapter.absolute()} does not exist), nor a model. If it was trained elsewhere, give the path of its run; "
        f"else {train}name a model by its hub id (ORGANISATION/NAME), its folder, or `{LAPTOP}` ({MODELS[LAPTOP]})."
    )


def gpu_mebibytes() -> int | None:
    """Memory of the first NVIDIA GPU in MiB, as `nvidia-smi` reports it; None where there is none."""
    command = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    first = answer.stdout.splitlines()[:1]
    return int(first[0]) if answer.returncode == 0 and first and first[0].isdecimal() else None


def choose_profile(mebibytes: int | None) -> str:
    """The largest profile that fits a GPU of this size, else `tiny`."""
    return next((profile for wanted, profile in PROFILES.items() if (mebibytes or 0) >= wanted), "tiny")


def trained_profile() -> str:
    """The largest profile that fits the GPU and was trained, else `tiny`."""
    mebibytes = gpu_mebibytes()
    if mebibytes is None:
        return "tiny"
    import torch

    if not torch.cuda.is_available():  # a driver that is too old, or hidden by CUDA_VISIBLE_DEVICES
        return "tiny"
    for profile in (profile for wanted, profile in PROFILES.items() if mebibytes >= wanted):
        try:
            find_adapters(profile)
        except LiteError:
            logger.warning("%s would fit this GPU but is not trained yet: bash recipes/stage2.sh", profile)
        else:
            return profile
    return "tiny"


def default_model() -> str:
    """What answers where nothing is named.

    Raises:
        LiteError: No profile was trained; the embedded model is no choice for anybody's documents.
    """
    profile = trained_profile()
    if profile == "tiny":
        raise LiteError(
            "No profile was trained that fits this machine. Name what is to answer: Rag.load('laptop') "
            f"({MODELS[LAPTOP]}), any model's id or folder, or 'tiny', which knows only flags."
        )
    return profile


def stage1_of(stage2: Path) -> Path:
    """The stage 1 adapter that the adapter `stage2` is stacked on: the one that its run's settings name, if it still
    exists, else the one of the stage1 run beside its own."""
    settings = stage2.parent / "config.yaml"
    named = (read_settings(settings) if settings.exists() else {}).get("stage1_adapter")
    known = isinstance(named, str) and (Path(named) / CARD).exists()
    return Path(named) if known else stage1_beside(stage2)


def read_settings(path: Path) -> dict:
    """The `config.yaml` of a run.

    Raises:
        LiteError: It does not hold settings by name.
    """
    settings = read_yaml(path)
    if not isinstance(settings, dict):
        raise LiteError(f"{path} must hold `field: value` lines. Restore the file, or remove its run folder.")
    return settings


def stage1_beside(stage2: Path) -> Path:
    """Where stage 1's adapter is by default: `stage1/adapter` for `stage2/adapter`, `stage1` for `stage2`."""
    return stage2.parent.parent / STAGE1 / "adapter" if stage2.name == "adapter" else stage2.parent / STAGE1


def tuned_card(stage1: Path) -> dict:
    """The card of a stage 1 adapter, with the threshold that its report tuned.

    Raises:
        LiteError: There is no adapter, or its run was stopped before the report.
    """
    card = read_card(stage1)
    if "threshold" not in card:
        raise LiteError(f"Stage 1 in {stage1} was stopped before its report: run recipes/stage1.sh again to finish it.")
    return card


def write_card(folder: Path, card: dict) -> None:
    write_text(folder / CARD, json.dumps(card, indent=2) + "\n")


def read_card(folder: Path) -> dict:
    """The card of a saved adapter.

    Raises:
        LiteError: There is none, or it is not one that lite wrote; the message names the field.
    """
    if not (folder / CARD).exists():
        raise LiteError(
            f"{folder} holds no adapter made by lite ({CARD} is missing). Train one with recipes/stage1.sh."
        )
    card = read_json(folder / CARD)
    if not isinstance(card, dict):
        raise LiteError(f"{folder / CARD} must hold one JSON object. Train or copy the adapter anew.")
    missing = (REQUIRED | (OF_STAGE2 if "active" in card else set())) - card.keys()
    for name, is_right in CARD_FIELDS.items():
        if name in missing or (name in card and not is_right(card[name])):
            found = repr(card[name])[:100] if name in card else "missing"
            raise LiteError(f"{folder / CARD}: {name!r} is {found}. Train or copy the adapter anew.")
    return card


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**31


# What the fields of a card must be; it may hold others.
CARD_FIELDS = {
    **dict.fromkeys(("stage", "base", "base_fingerprint", "hash", "data", "model_type"), _is_text),
    **dict.fromkeys(("document_chars", "max_kept", "max_documents", "max_completion_length"), _is_count),
    "quotes": lambda value: isinstance(value, bool),
    "max_pixels": lambda value: value is None or _is_count(value),
    "stage1_hash": lambda value: value is None or _is_text(value),
    "threshold": lambda value: isinstance(value, int | float) and 0 <= value <= 1,
    "active": lambda value: value in ([STAGE1, STAGE2], [STAGE2]),
}
REQUIRED = {"base", "base_fingerprint", "hash", "document_chars", "max_pixels"}
OF_STAGE2 = {"stage1_hash", "max_documents", "max_completion_length"}


def read_metrics(path: Path) -> list[dict]:
    """The rows of a `metrics.jsonl`; a last line that a kill cut short is left out."""
    rows = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []:
        try:
            rows.append(json.loads(line))
        except (ValueError, RecursionError):
            logger.warning("%s: leaving out an incomplete line.", path)
    return rows


def main(arguments: list[str]) -> None:
    """For recipes/profile.sh: `python -m lite.runs [PROFILE]` prints a sentence on the choice, then the profile."""
    profiles = sorted(path.parent.name for path in Path("recipes").glob("*/stage1.yaml"))
    asked = next(filter(None, arguments), None)
    if asked and asked not in profiles:
        sys.exit(printable(f"There is no recipes/{asked}/stage1.yaml. Profiles: {' '.join(profiles)}"))
    mebibytes = None if asked else gpu_mebibytes()
    profile = asked or choose_profile(mebibytes)
    needed = ", ".join(f"{name} needs {size}" for size, name in PROFILES.items())
    if asked:
        print(f"Profile {asked}, as asked.")
    elif mebibytes is not None:
        print(f"Profile {profile}: the GPU has {mebibytes} MiB ({needed}).")
    else:
        print("Profile tiny: no NVIDIA GPU answers. The embedded model knows only flags; it is for trying everything.")
    print(profile)


if __name__ == "__main__":
    main(sys.argv[1:])
