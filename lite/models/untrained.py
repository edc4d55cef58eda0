"""A vision-language model as it is published, without adapters: what answers before anything was trained."""

from __future__ import annotations

from transformers import AutoConfig, PreTrainedModel, ProcessorMixin

from lite.config.model import ModelConfig
from lite.models.families import family_of
from lite.models.fits import fit
from lite.models.hub import download, find_model
from lite.models.loading import load_model
from lite.runs import MODELS, UNTRAINED

MAX_PIXELS = 512 * 512  # as in the recipes of full-size models


def load_untrained(name: str) -> tuple[PreTrainedModel, ProcessorMixin, dict, dict]:
    """Load a model by hub id, folder or alias: (model, processor, and what the stages' cards would say).

    Its weights stay as they were published where memory allows, else they are quantised to NF4. No threshold was
    tuned, so search and filter together rank, and the best `max_documents` are passed on.

    Raises:
        LiteError: It cannot be loaded, is no vision-language model, does not fit, or cannot be asked; the message says
            why and what to do.
    """
    found = find_model(name)
    in_4bit = fit(found.folder, found.name)
    folder = download(found)
    known = family_of(AutoConfig.from_pretrained(folder)).limit_pixels is not None
    max_pixels = MAX_PIXELS if known else None
    model, processor = load_model(
        ModelConfig(model_name_or_path=str(folder), load_in_4bit=in_4bit, max_pixels=max_pixels)
    )
    card = {"base": MODELS.get(name, name), "max_pixels": max_pixels} | UNTRAINED
    return model, processor, card | {"threshold": None, "max_kept": card["max_documents"]}, card | {"active": []}
