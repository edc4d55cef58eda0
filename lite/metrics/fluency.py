"""WebQA's QA-FL: how likely BART finds an answer as a paraphrase of the gold one, relative to the gold one itself.

BARTScore (Yuan et al., 2021): the mean log-probability per token of a text, given another one. The leaderboard uses
`facebook/bart-large-cnn` with weights fine-tuned on ParaBank2, the `bart.pth` that github.com/neulab/BARTScore links.
"""

from __future__ import annotations

import logging
import math
import string
from collections.abc import Callable, Sequence
from pathlib import Path

from lite.hub import give_up_early
from lite.schema import LiteError, first_line

logger = logging.getLogger(__name__)

MODEL = "facebook/bart-large-cnn"
PUNCTUATION = str.maketrans("", "", string.punctuation)
MAX_TOKENS = 1024  # of BART
BATCH = 16

Scorer = Callable[[Sequence[str], Sequence[str]], list[float]]


def load_bartscore(model: str = MODEL, weights: Path | None = None) -> Scorer | None:
    """(sources, targets) to the mean log-probability per token of each target given its source.

    Args:
        model: Hub id or local folder of a BART with its tokenizer.
        weights: A state dict to load on top: BARTScore's `bart.pth`, for the leaderboard's own figures.

    Returns:
        None, with a warning, where the model is neither cached nor reachable on the hub.

    Raises:
        LiteError: `model` is a folder without a BART, or the weights do not fit.
    """
    import torch
    from transformers import AutoTokenizer, BartForConditionalGeneration

    give_up_early(model)
    try:
        tokenizer = AutoTokenizer.from_pretrained(model)
        bart = BartForConditionalGeneration.from_pretrained(model)
    except (OSError, ValueError) as error:
        if Path(model).exists():
            raise LiteError(f"{model} holds no BART with its tokenizer: {error}") from error
        logger.warning("QA-FL is unavailable: %s cannot be loaded (%s).", model, first_line(error))
        return None
    if weights is not None:
        _load_weights(bart, weights)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    bart.eval().to(device)

    @torch.no_grad()
    def score(sources: Sequence[str], targets: Sequence[str]) -> list[float]:
        scores: list[float] = []
        for start in range(0, len(sources), BATCH):
            source, target = (
                tokenizer(
                    list(texts[start : start + BATCH]),
                    max_length=MAX_TOKENS, truncation=True, padding=True, return_tensors="pt",
                ).to(device)
                for texts in (sources, targets)
            )  # fmt: skip
            labels = target["input_ids"].masked_fill(target["attention_mask"] == 0, tokenizer.pad_token_id)
            logits = bart(
                input_ids=source["input_ids"], attention_mask=source["attention_mask"], labels=labels
            ).logits  # [b, t, v]
            losses = torch.nn.functional.cross_entropy(
                logits.float().transpose(1, 2), labels, ignore_index=tokenizer.pad_token_id, reduction="none"
            )  # [b, t]
            scores += (-losses.sum(1) / target["attention_mask"].sum(1)).tolist()
        return scores

    return score


def _load_weights(bart, weights: Path) -> None:
    import torch

    try:
        state = torch.load(weights, map_location="cpu", weights_only=True)
        missing, unexpected = bart.load_state_dict(state, strict=False)
    except Exception as error:  # torch.load raises whatever pickle, zip or the shapes do
        raise LiteError(f"{weights} cannot be loaded as weights of this BART: {error}") from error
    tied = {"lm_head.weight", "model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight"}
    if set(missing) - tied - {"final_logits_bias"} or unexpected:
        raise LiteError(
            f"{weights} does not fit this BART: {len(missing)} weights are missing, {len(unexpected)} are unknown "
            f"(such as {[*missing, *unexpected][0]!r}). Use BARTScore's bart.pth with {MODEL}."
        )
    bart.tie_weights()


def qa_fluency(pairs: Sequence[tuple[tuple[str, ...], str]], bartscore: Scorer) -> list[float]:
    """QA-FL of each (gold answers, answer), in [0, 1].

    The best ratio, over the gold answers, of P(answer | gold)^(1/tokens) to P(gold | gold)^(1/tokens), at most 1.
    Punctuation is dropped first.
    """
    flat = [(plain(gold), plain(answer)) for golds, answer in pairs for gold in golds]
    distinct = list(dict.fromkeys(gold for gold, _ in flat))
    own = dict(zip(distinct, bartscore(distinct, distinct), strict=True))
    given = iter(bartscore([gold for gold, _ in flat], [answer for _, answer in flat]))
    return [
        min(1.0, max((math.exp(next(given) - own[plain(gold)]) for gold in golds), default=0.0)) for golds, _ in pairs
    ]


def plain(text: str) -> str:
    """Without punctuation, single spaces."""
    return " ".join(text.translate(PUNCTUATION).split())
