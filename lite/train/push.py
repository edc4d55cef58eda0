"""Trained adapters on the Hugging Face hub: both stages as one for everybody, and each for lite."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import httpx
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled
from huggingface_hub.utils import validate_repo_id

from lite.files import read_json, write_text
from lite.models.adapters import WEIGHTS
from lite.models.loading import model_path
from lite.runs import CARD, read_card, write_card
from lite.schema import LiteError
from lite.train.export import export, public_data, stages_of
from lite.train.model_card import model_card, stage_card

SETTINGS = "adapter_config.json"


def prepare(run: Path, out: Path, repo: str, base: str | None = None) -> Path:
    """Write what `upload` uploads: the joined adapter with the card, and below it each stage's own adapter.

    Nothing of this machine is in it: no path, no settings but those of the card.

    Args:
        run: A run folder of either stage.
        out: A new folder.
        repo: ORGANISATION/NAME on the hub.
        base: The base's id on the hub, where it was trained on a local copy.

    Returns:
        `out`.

    Raises:
        LiteError: `repo` is no such id, others cannot load the base, or as for `export`.
    """
    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise LiteError(f"{repo} is no id of the hub. Give ORGANISATION/NAME, such as you/my-adapters.") from error
    if "/" not in repo:
        raise LiteError(f"{repo} is no id of the hub. Give ORGANISATION/NAME, such as you/{repo}.")
    trained_on = read_card(run / "adapter")["base"]
    public = base or trained_on
    if public != "tiny" and Path(model_path(public)).exists():
        raise LiteError(f"{run} was trained on the folder {public}, which others lack. Name its hub id: --base ID")
    export(run, out)
    _publish(out, public)
    for stage, folder in stages_of(run).items():
        (out / stage).mkdir()
        for name in (SETTINGS, WEIGHTS, CARD):
            shutil.copyfile(folder / name, out / stage / name)
        _publish(out / stage, public)
        write_text(out / stage / "README.md", stage_card(stage, repo))
    card = read_card(out) | {"rank": read_json(out / SETTINGS)["r"]}
    write_text(out / "README.md", model_card(run, card, merged=False, repo=repo))
    return out


def _publish(folder: Path, base: str) -> None:
    """Name the base as others know it, and the data without paths."""
    card = read_card(folder)
    write_card(folder, card | {"base": base} | ({"data": public_data(card["data"])} if "data" in card else {}))
    settings = read_json(folder / SETTINGS) | {"base_model_name_or_path": base}
    write_text(folder / SETTINGS, json.dumps(settings, indent=2, sort_keys=True) + "\n")


def upload(folder: Path, repo: str, private: bool = False) -> str:
    """Upload a folder that `prepare` wrote. Returns where it is then.

    Raises:
        LiteError: Nobody is logged in, the account may not write there, or the hub does not answer.
    """
    api = HfApi()
    try:
        address = api.create_repo(repo, private=private, exist_ok=True)
        api.upload_folder(repo_id=repo, folder_path=folder, commit_message="Upload adapters trained by lite")
    except HfHubHTTPError as error:
        if error.response is not None and error.response.status_code in (401, 403):
            raise LiteError(
                f"The hub does not let this account write to {repo}. Log in with a token that may write: hf auth login"
            ) from error
        raise LiteError(f"The hub refused {repo}: {' '.join(str(error).split())[:300]}") from error
    except (OfflineModeIsEnabled, httpx.TransportError) as error:
        raise LiteError(
            "The hub cannot be reached, or HF_HUB_OFFLINE is set. Nothing was uploaded. Try again later."
        ) from error
    return str(address)
