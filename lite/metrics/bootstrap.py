"""Means over questions with 95 % percentile bootstrap intervals."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

RESAMPLES = 1000


def mean(values: Sequence[float], seed: int = 0) -> dict[str, float]:
    """`{"value", "low", "high"}` of per-question values `[n]`.

    For a paired difference, give the differences: resampling questions then keeps the pairs together.
    """
    if not len(values):
        raise ValueError("There is no question to measure")
    values = np.asarray(values, dtype=float)
    draws = np.random.default_rng(seed).integers(len(values), size=(RESAMPLES, len(values)))
    low, high = np.percentile(values[draws].mean(axis=1), [2.5, 97.5])
    return {"value": float(values.mean()), "low": float(low), "high": float(high)}
