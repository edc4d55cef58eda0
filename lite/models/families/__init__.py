"""Model families. To add one, write a small file like `qwen_vl.py` and name it here.

A model of a family that nobody has described works by what `lite.models.layers` and `lite.models.inputs` derive from
the model itself, without the shared prompt, and as long as no setting needs to know more.
"""

from __future__ import annotations

from transformers import PretrainedConfig

from lite.models.families import gemma, internvl, lfm2_vl, qwen3_5, qwen_vl, smolvlm
from lite.models.families.family import Family

FAMILIES = (qwen_vl.FAMILY, qwen3_5.FAMILY, smolvlm.FAMILY, internvl.FAMILY, gemma.GEMMA3, gemma.GEMMA4, lfm2_vl.FAMILY)


def family_of(config: PretrainedConfig) -> Family:
    """The family of a model's configuration; one without knowledge where none is described."""
    known = (family for family in FAMILIES if config.model_type in family.model_types)
    return next(known, Family(model_types=(config.model_type,)))
