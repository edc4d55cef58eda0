"""From a model's name to a folder with its files: what cannot be used is refused before gigabytes are downloaded.

Nothing here imports torch or transformers, so that a mistyped name is told of at once.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import lru_cache
from pathlib import Path

import httpx
from huggingface_hub import HfApi, hf_hub_download, snapshot_download
from huggingface_hub.constants import ENV_VARS_TRUE_VALUES, HF_HUB_CACHE
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)

from lite.hub import give_up_early
from lite.runs import CARD, LAPTOP, MODELS, STAGE1, STAGE2
from lite.schema import LiteError

logger = logging.getLogger(__name__)

CONFIG, ADAPTER = "config.json", "adapter_config.json"
FILES = ("*.json", "*.jinja", "*.txt", "*.model", "*.safetensors")  # of a model, at the top of its folder
PATIENCE = 5.0  # seconds until a hub that does not answer counts as unreachable
CHOOSE = f"Choose a vision-language model, such as `{LAPTOP}` ({MODELS[LAPTOP]}) or Qwen/Qwen3-VL-2B-Instruct."


@dataclass(frozen=True)
class Found:
    """A model that can be used.

    Args:
        name: Hub id or folder.
        folder: Where its configuration is, and its weights unless something is `missing`.
        missing: Bytes that are still to be downloaded.
    """

    name: str
    folder: Path
    missing: int = 0


@lru_cache
def find_model(name: str) -> Found:
    """Look a model up by its folder, its hub id or an alias. The hub is given up after seconds.

    Raises:
        LiteError: There is no such model, it reads no images, or its files cannot be fetched.
    """
    name = MODELS.get(name, name)
    if Path(name).exists():
        check_folder(Path(name), name)
        if not any(Path(name).glob("*.safetensors")):
            raise LiteError(f"{name} holds no weights (*.safetensors; other formats are not read). Restore them.")
        return Found(name, Path(name))
    cached = _cached(name)
    give_up_early(name)
    try:
        info = HfApi().model_info(name, files_metadata=True, timeout=PATIENCE)
    except RepositoryNotFoundError as error:
        raise LiteError(
            f"There is no model {name} on the Hugging Face hub, or it is private (then: hf auth login). Check the id, "
            f"or give a folder. {CHOOSE}"
        ) from error
    except HFValidationError as error:
        raise LiteError(f"{name} is neither a folder nor a hub id (ORGANISATION/NAME). {CHOOSE}") from error
    except (OfflineModeIsEnabled, httpx.TransportError, HfHubHTTPError) as error:
        if cached is None:
            raise LiteError(_unreachable(name, error)) from error
        check_folder(cached, name)
        return Found(name, cached)
    files = {file.rfilename: file.size or 0 for file in info.siblings or () if _is_wanted(file.rfilename)}
    if not any(file.endswith(".safetensors") for file in files) or CONFIG not in files:
        lacking = "an adapter" if ADAPTER in files else "no model that transformers reads (config.json, *.safetensors)"
        raise LiteError(f"{name} on the hub holds {lacking}. {CHOOSE}")
    folder = Path(_fetched(name, CONFIG)).parent
    check_folder(folder, name)
    return Found(name, folder, sum(size for file, size in files.items() if not (folder / file).exists()))


def download(found: Found) -> Path:
    """The model's folder with all of its files; how much is downloaded is said before.

    Raises:
        LiteError: The disk is too small, the licence is not accepted, or the connection breaks; the same call goes on.
    """
    if not found.missing:
        return found.folder
    place = Path(HF_HUB_CACHE)
    existing = next(folder for folder in (place, *place.parents) if folder.exists())
    free = shutil.disk_usage(existing).free
    if free < found.missing:
        raise LiteError(
            f"{found.name} needs {_size(found.missing)} on the disk of {place}, where {_size(free)} are free. Make "
            "room, or let the environment variable HF_HOME name a folder on another disk."
        )
    logger.warning("Downloading %s: %s, once, to %s", found.name, _size(found.missing), place)
    folder = Path(_fetched(found.name))
    find_model.cache_clear()
    return folder


def fetch_adapters(name: str) -> Path:
    """The folder of both stages' adapters that `lite push` wrote: a local one, or one of the hub, downloaded once.

    Only settings (JSON) and weights (safetensors) are fetched; both are checked when they are loaded.

    Raises:
        LiteError: There are none of that name, or they cannot be fetched.
    """
    if Path(name).is_dir():
        folder = Path(name)
    else:
        give_up_early(name)
        files = [f"{stage}/{file}" for stage in (STAGE1, STAGE2) for file in (ADAPTER, "*.safetensors", CARD)]
        try:
            folder = Path(snapshot_download(name, allow_patterns=files, etag_timeout=PATIENCE))
        except HFValidationError as error:
            raise LiteError(f"{name} is neither a folder nor a hub id (ORGANISATION/NAME).") from error
        except RepositoryNotFoundError as error:
            raise LiteError(
                f"There are no adapters {name} on the Hugging Face hub, or they are private (then: hf auth login)."
            ) from error
        except (LocalEntryNotFoundError, OfflineModeIsEnabled, httpx.TransportError, HfHubHTTPError) as error:
            raise LiteError(_unreachable(name, error).replace("--model FOLDER", "--adapters FOLDER")) from error
    if not (folder / STAGE2 / CARD).exists():
        raise LiteError(
            f"{name} holds no adapters that lite can ask ({STAGE2}/{CARD} is missing). `lite push` makes such ones; of "
            "another adapter, merge it into its model and give that: --model FOLDER."
        )
    return folder


def check_folder(folder: Path, name: str) -> None:
    """Refuse a folder that holds no vision-language model.

    Raises:
        LiteError: It says what it is instead.
    """
    if not folder.is_dir():
        raise LiteError(f"{name} is a file. Give the folder of a model, with its config.json and *.safetensors.")
    if (folder / ADAPTER).exists() and not (folder / CONFIG).exists():
        base = _read(folder / ADAPTER, name).get("base_model_name_or_path")
        of = f" for {base}" if isinstance(base, str) and base else ""
        way_on = "Give its run with --profile" if (folder / CARD).exists() else "Merge it into its model, and give that"
        raise LiteError(f"{name} is an adapter{of}, not a model. {way_on}, or ask that model without it: --model ID.")
    if not (folder / CONFIG).exists():
        raise LiteError(f"{name} is no model: it holds no config.json. {CHOOSE}")
    config = _read(folder / CONFIG, name)
    kind = config.get("model_type")
    if not any(word in key for key in config for word in ("vision", "image")):  # all that transformers knows name them
        of = f" ({kind})" if isinstance(kind, str) else ""
        raise LiteError(f"{name} is a model for text alone{of}, and documents have images, too. {CHOOSE}")


def _read(path: Path, name: str) -> dict:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise LiteError(f"{name} is no model: its {path.name} cannot be read ({error}). Restore the file.") from error
    if not isinstance(values, dict):
        raise LiteError(f"{name} is no model: its {path.name} holds no JSON object. Restore the file.")
    return values


def _is_wanted(file: str) -> bool:
    return "/" not in file and any(fnmatch(file, pattern) for pattern in FILES)


def _fetched(name: str, file: str | None = None) -> str:
    """The path of a file of a model on the hub, or of a folder with all that are wanted."""
    try:
        if file is not None:
            return hf_hub_download(name, file, etag_timeout=PATIENCE)
        return snapshot_download(name, allow_patterns=list(FILES), ignore_patterns=["*/*"], etag_timeout=PATIENCE)
    except GatedRepoError as error:
        raise LiteError(
            f"The licence of {name} has not been accepted by your account. Accept it on the model's page, then "
            f"`hf auth login`, or choose another model. {CHOOSE}"
        ) from error
    except (OfflineModeIsEnabled, httpx.TransportError, OSError) as error:
        raise LiteError(_unreachable(name, error)) from error


def _cached(name: str) -> Path | None:
    """The complete copy of a model that was downloaded before, if any."""
    try:
        folder = snapshot_download(
            name, allow_patterns=list(FILES), ignore_patterns=["*/*"], local_files_only=True
        )  # fmt: skip
    except (LocalEntryNotFoundError, HFValidationError):
        return None
    complete = (Path(folder) / CONFIG).exists() and any(Path(folder).glob("*.safetensors"))
    return Path(folder) if complete else None


def _unreachable(name: str, error: Exception) -> str:
    if isinstance(error, OfflineModeIsEnabled) and os.environ.get("HF_HUB_OFFLINE", "").upper() in ENV_VARS_TRUE_VALUES:
        why = "HF_HUB_OFFLINE is set, so the hub is not asked"
    elif isinstance(error, HfHubHTTPError):
        why = f"the hub answers with an error ({re.split(r'[.(]', str(error).strip())[0][:100]})"
    else:
        why = "the Hugging Face hub cannot be reached"
    return (
        f"{name} is not on this machine, and {why}. Check the connection and try again; or download the model where "
        "there is one, and give its folder: --model FOLDER."
    )


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{max(count / 1e6, 0.1):.1f} MB"


def is_model(name: str | Path) -> bool:
    """Whether a name means a model, be it there or not: an alias, a folder that looks like one, or ORGANISATION/NAME
    where there is no folder ORGANISATION."""
    place = Path(name)
    if place.exists():
        return place.is_file() or (place / CONFIG).exists() or (place / ADAPTER).exists()
    named = re.fullmatch(r"([\w-][\w.-]*)/[\w-][\w.-]*", str(name))
    return name in MODELS or (named is not None and not Path(named[1]).is_dir())
